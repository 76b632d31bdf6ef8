// Warps in lock step: branches, barriers, whose turn it is; launches.
#include <algorithm>
#include <random>

#include "tests/ptx/warp.h"

namespace crumb::ptx {
namespace {

constexpr uint32_t kEnd = ~0u - 1;  // as a block of instructions: where threads end

/// Basic blocks and what may follow each.
struct Graph {
  std::vector<uint32_t> block_of, begin;
  std::vector<std::vector<uint32_t>> next;
};

Graph graph_of(const std::vector<Instruction>& code) {
  const auto size = static_cast<uint32_t>(code.size());
  std::vector<bool> begins(size + 1, false);
  begins[0] = true;
  for (uint32_t pc = 0; pc < size; ++pc) {
    if (code[pc].kind != Instruction::Kind::branch && code[pc].kind != Instruction::Kind::leave) continue;
    begins[pc + 1] = true;
    for (const uint32_t target : code[pc].targets) begins[target] = true;
  }
  Graph out;
  for (uint32_t pc = 0; pc < size; ++pc) {
    if (begins[pc]) out.begin.push_back(pc);
    out.block_of.push_back(static_cast<uint32_t>(out.begin.size()) - 1);
  }
  const auto blocks = static_cast<uint32_t>(out.begin.size());
  for (uint32_t b = 0; b < blocks; ++b) {
    const uint32_t last = (b + 1 < blocks ? out.begin[b + 1] : size) - 1;
    const Instruction& i = code[last];
    auto& next = out.next.emplace_back();
    if (i.kind == Instruction::Kind::leave) next.push_back(kEnd);
    if (i.kind == Instruction::Kind::branch)
      for (const uint32_t target : i.targets) next.push_back(target < size ? out.block_of[target] : kEnd);
    if ((i.kind != Instruction::Kind::leave && i.kind != Instruction::Kind::branch) || i.conditional)
      next.push_back(last + 1 < size ? b + 1 : kEnd);
  }
  return out;
}

}  // namespace

void find_reconvergence(std::vector<Instruction>& code) {
  if (code.empty()) return;
  const Graph graph = graph_of(code);
  const auto blocks = static_cast<uint32_t>(graph.begin.size());
  // Blocks numbered so that the end comes first and, loops aside, what follows a block before it; then the iteration of
  // Cooper, Harvey and Kennedy on the reversed graph.
  std::vector<std::vector<uint32_t>> previous(blocks + 1);
  for (uint32_t b = 0; b < blocks; ++b)
    for (const uint32_t n : graph.next[b]) previous[n == kEnd ? blocks : n].push_back(b);
  std::vector<uint32_t> order, rank(blocks + 1, kNever);
  std::vector<std::pair<uint32_t, size_t>> walk{{blocks, 0}};
  std::vector<bool> visited(blocks + 1, false);
  visited[blocks] = true;
  while (!walk.empty()) {
    auto& [block, child] = walk.back();
    if (child < previous[block].size()) {
      const uint32_t next = previous[block][child++];
      if (!visited[next]) {
        visited[next] = true;
        walk.push_back({next, 0});
      }
    } else {
      rank[block] = static_cast<uint32_t>(order.size());
      order.push_back(block);
      walk.pop_back();
    }
  }
  std::vector<uint32_t> dominator(blocks + 1, kNever);
  dominator[blocks] = blocks;
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t at = order.size() - 1; at-- > 0;) {  // all but the end
      const uint32_t block = order[at];
      uint32_t found = kNever;
      for (uint32_t next : graph.next[block]) {
        if (next == kEnd) next = blocks;
        if (dominator[next] == kNever) continue;
        if (found == kNever) found = next;
        while (found != next) {
          while (rank[found] < rank[next]) found = dominator[found];
          while (rank[next] < rank[found]) next = dominator[next];
        }
      }
      changed |= dominator[block] != found;
      dominator[block] = found;
    }
  }
  for (uint32_t pc = 0; pc < code.size(); ++pc) {
    const uint32_t found = dominator[graph.block_of[pc]];
    code[pc].reconvergence = found < blocks ? graph.begin[found] : kNever;
  }
}

namespace {

class Runner {
 public:
  Runner(Block& block, Kernel& kernel, uint64_t& steps, uint64_t& thread_steps, uint64_t random)
      : block_(block), kernel_(kernel), steps_(steps), thread_steps_(thread_steps), random_(random) {}

  void run() {
    std::vector<Warp*> ready;
    for (;;) {
      ready.clear();
      for (Warp& warp : block_.warps)
        if (!warp.done && !warp.waits) ready.push_back(&warp);
      if (ready.empty()) break;
      if (block_.options->seed == 0) {
        for (Warp* warp : ready) run_warp(*warp, ~uint64_t{0});
      } else {
        Warp& next = *ready[random_() % ready.size()];
        run_warp(next, 1 + random_() % 48);
      }
    }
    for (Barrier& barrier : block_.barriers) {
      if (barrier.waiting.empty()) continue;
      const auto ended = std::count_if(block_.warps.begin(), block_.warps.end(), [](const Warp& w) { return w.done; });
      fail(*barrier.waiting.front(), barrier.waiting.front()->pc - 1,
           {"waits forever: " + std::to_string(barrier.arrived) + " warps have come to the barrier for " +
            (barrier.expected == 0 ? "all" : std::to_string(barrier.expected)) + ", " + std::to_string(ended) + " of " +
            std::to_string(block_.warps.size()) + " have ended"});
    }
  }

 private:
  [[noreturn]] void fail(const Warp& warp, uint32_t pc, const Fault& fault) {
    const Instruction& i = kernel_.code[pc];
    const auto place = [](uint64_t x, uint64_t y, uint64_t z) {
      return "(" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ")";
    };
    std::string who = "warp " + std::to_string(warp.id);
    if (fault.lane >= 0) {
      const uint64_t thread = uint64_t{warp.id} * kLanes + static_cast<uint64_t>(fault.lane), x = block_.size.x,
                     y = block_.size.y;
      who = "thread " + place(thread % x, thread / x % y, thread / x / y);
    }
    throw Error(kernel_.name + ", PTX line " + std::to_string(i.line) + " (" + *i.text + "), block " +
                place(block_.index.x, block_.index.y, block_.index.z) + ", " + who + ": " + fault.what);
  }

  void run_warp(Warp& w, uint64_t turns) {
    Instruction* const code = kernel_.code.data();
    uint64_t* const executed = kernel_.executed.data();
    for (; turns > 0 && !w.waits && !w.done; --turns) {
      if (w.pc == w.reconvergence) {
        resume(w);
        continue;
      }
      const uint32_t pc = w.pc;
      const Instruction& i = code[pc];
      if (++steps_ > block_.options->max_steps)
        fail(w, pc,
             {"more than " + std::to_string(block_.options->max_steps) +
              " steps in a launch (max_steps): a loop without end?"});
      w.mask = w.active;
      if (i.guard != kSinkRow) {
        check_written(w, i.guard, pc);
        w.mask &= i.guard_negated ? ~w.predicate(i.guard) : w.predicate(i.guard);
      }
      ++executed[pc];
      if (w.mask == 0) {
        ++w.pc;
        continue;
      }
      thread_steps_ += static_cast<uint64_t>(std::popcount(w.mask));
      for (const uint32_t row : i.reads) check_written(w, row, pc);
      try {
        switch (i.kind) {
          case Instruction::Kind::plain:
            i.run(w, i);
            ++w.pc;
            break;
          case Instruction::Kind::branch:
            branch(w, i);
            break;
          case Instruction::Kind::leave:
            leave(w);
            break;
          case Instruction::Kind::barrier:
            ++w.pc;
            barrier(w, i);
            break;
        }
      } catch (const Fault& fault) {
        fail(w, pc, fault);
      }
      for (const uint32_t row : i.writes) w.defined[row] |= w.mask;
    }
    if (w.done)
      for (Barrier& barrier : block_.barriers)
        if (barrier.expected == 0) release_if_full(barrier);
  }

  void check_written(const Warp& w, uint32_t row, uint32_t pc) {
    const uint32_t missing = w.mask & ~w.defined[row];
    if (missing != 0 && block_.options->check_uninitialised)
      fail(w, pc, {"reads a register that was not written", std::countr_zero(missing)});
  }

  /// Those who waited longest go on, where that is; the warp ends if there is nobody.
  static void resume(Warp& w) {
    for (;;) {
      if (w.pending.empty()) {
        w.done = true;
        w.active = 0;
        return;
      }
      const Pending next = w.pending.back();
      w.pending.pop_back();
      w.active = next.mask & w.live;
      w.pc = next.pc;
      w.reconvergence = next.reconvergence;
      if (w.active != 0) return;
    }
  }

  void leave(Warp& w) {
    require_no_copies(w);
    w.live &= ~w.mask;
    w.active &= ~w.mask;
    ++w.pc;
    if (w.active == 0) resume(w);
  }

  static void require_no_copies(Warp& w) {
    each_lane(w.mask, [&](int lane) {
      if (!w.copies[static_cast<size_t>(lane)].empty())
        throw Fault{"ends without having waited for its cp.async", lane};
    });
  }

  void branch(Warp& w, const Instruction& i) {
    const uint32_t next = w.pc + 1;
    // Where to, and who.
    std::vector<std::pair<uint32_t, uint32_t>>& parts = parts_;
    parts.clear();
    if (i.op[1] == kSinkRow) {
      parts.push_back({i.targets[0], w.mask});
    } else {  // brx.idx
      const uint32_t* index = w.row<uint32_t>(i.op[1]);
      each_lane(w.mask, [&](int lane) {
        if (index[lane] >= i.targets.size())
          throw Fault{"index " + std::to_string(index[lane]) + " of " + std::to_string(i.targets.size()) + " targets",
                      lane};
        const uint32_t target = i.targets[index[lane]];
        auto found = std::find_if(parts.begin(), parts.end(), [&](const auto& part) { return part.first == target; });
        if (found == parts.end()) found = parts.insert(found, {target, 0});
        found->second |= uint32_t{1} << lane;
      });
    }
    if (w.active != w.mask) parts.push_back({next, w.active & ~w.mask});
    if (parts.size() == 1) {
      w.pc = parts[0].first;
      return;
    }
    if (i.uniform) throw Fault{"lanes part at a branch that was declared uniform (.uni)"};
    if (i.reconvergence != w.reconvergence && i.reconvergence != kNever)
      w.pending.push_back({i.reconvergence, w.reconvergence, w.active});
    const uint32_t meet = i.reconvergence != kNever ? i.reconvergence : w.reconvergence;
    const uint32_t all = w.mask;
    w.active = 0;
    for (const auto& [target, mask] : parts) {
      if (kernel_.code[target].kind == Instruction::Kind::leave && !kernel_.code[target].conditional) {
        // They have ended for those who go on and ask who is there.
        ++kernel_.executed[target];
        w.mask = mask;
        require_no_copies(w);
        w.live &= ~mask;
      } else if (target != meet) {
        w.pending.push_back({target, meet, mask});
      }
    }
    w.mask = all;
    resume(w);
  }

  void barrier(Warp& w, const Instruction& i) {
    if (w.mask != w.live)
      throw Fault{"lanes " + hex(w.mask) + " come to a barrier while lanes " + hex(w.live & ~w.mask) +
                  " of their warp do not: the barrier is divergent"};
    const auto uniform = [&](uint32_t row) {
      const uint32_t* values = w.row<uint32_t>(row);
      const uint32_t first = values[std::countr_zero(w.mask)];
      each_lane(w.mask, [&](int lane) {
        if (values[lane] != first) throw Fault{"lanes of a warp come to different barriers", lane};
      });
      return first;
    };
    const uint32_t number = uniform(i.op[1]);
    if (number >= block_.barriers.size()) throw Fault{"there is no barrier " + std::to_string(number)};
    const auto warps = static_cast<uint32_t>(block_.warps.size());
    uint32_t expected = 0;  // all that have not ended
    if (i.op[2] != kSinkRow) {
      const uint32_t threads = uniform(i.op[2]);
      if (threads == 0 || threads % kLanes != 0)
        throw Fault{"a barrier of " + std::to_string(threads) + " threads: no multiple of 32"};
      expected = threads / kLanes;
    }
    Barrier& barrier = block_.barriers[number];
    if (barrier.arrived == 0) {
      barrier.expected = expected;
      barrier.seen.assign(warps, 0);
    }
    const auto threads_of = [](uint32_t count) { return count == 0 ? "all" : std::to_string(count * kLanes); };
    if (barrier.expected != expected)
      throw Fault{"comes to barrier " + std::to_string(number) + " for " + threads_of(expected) +
                  " threads, others came for " + threads_of(barrier.expected)};
    ++barrier.arrived;
    w.seen[w.id] = w.interval;
    for (size_t v = 0; v < warps; ++v) barrier.seen[v] = std::max(barrier.seen[v], w.seen[v]);
    if (i.mode == kArrive) {
      block_.begin_interval(w);
    } else {
      barrier.waiting.push_back(&w);
      w.waits = true;
    }
    if (i.mode == kReduce) {
      const uint32_t values = (i.negated ? ~w.predicate(i.op[3]) : w.predicate(i.op[3])) & w.mask;
      barrier.set += static_cast<uint32_t>(std::popcount(values));
      barrier.threads += static_cast<uint32_t>(std::popcount(w.mask));
    }
    release_if_full(barrier);
  }

  /// A barrier for all does not wait for warps that have ended.
  void release_if_full(Barrier& barrier) {
    const size_t warps = block_.warps.size();
    const auto running = static_cast<uint32_t>(
        std::count_if(block_.warps.begin(), block_.warps.end(), [](const Warp& w) { return !w.done; }));
    if (barrier.arrived == 0 || barrier.arrived < (barrier.expected == 0 ? running : barrier.expected)) return;
    for (Warp* other : barrier.waiting) {
      other->waits = false;
      for (size_t v = 0; v < warps; ++v) other->seen[v] = std::max(other->seen[v], barrier.seen[v]);
      block_.begin_interval(*other);
      const Instruction& theirs = kernel_.code[other->pc - 1];
      if (theirs.mode != kReduce) continue;
      if (theirs.type == Type::pred) {
        other->mask = other->live;
        other->write_predicate(theirs.op[0], theirs.combine == Instruction::Combine::logical_or
                                                 ? (barrier.set > 0 ? ~0u : 0)
                                                 : (barrier.set == barrier.threads ? ~0u : 0));
      } else {
        std::fill_n(other->row<uint32_t>(theirs.op[0]), kLanes, barrier.set);
      }
    }
    barrier = Barrier();
  }

  Block& block_;
  Kernel& kernel_;
  uint64_t& steps_;
  uint64_t& thread_steps_;
  std::mt19937_64 random_;
  std::vector<std::pair<uint32_t, uint32_t>> parts_;
};

}  // namespace

void run_block(Block& block, Kernel& kernel, uint64_t& steps, uint64_t& thread_steps, uint64_t random) {
  Runner(block, kernel, steps, thread_steps, random).run();
}

}  // namespace crumb::ptx
