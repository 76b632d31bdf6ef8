"""Conversations as transformers writes and marks them: chat_peer.py MODEL ITEMS, a JSON list of lists of messages.

Prints, a line each, {"ids": [...], "mask": [...]} by apply_chat_template, whose mask follows {% generation %}: the
template of SmolLM2 has none, so its one expression that writes a turn is split at the content of an assistant.
"""
import json
import sys

from transformers import AutoTokenizer

TURN = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
MARKED = (
    "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}"
)

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
template = tokenizer.chat_template
assert TURN in template, template
with open(sys.argv[2], encoding="utf-8") as file:
    items = json.load(file)
for messages in items:
    plain = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    marked = tokenizer.apply_chat_template(
        messages, chat_template=template.replace(TURN, MARKED), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert plain == marked["input_ids"]
    print(json.dumps({"ids": plain, "mask": marked["assistant_masks"]}))
