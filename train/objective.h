// What training minimises. The trainer knows this interface only; distill/ holds the teacher-student losses.
#pragma once

#include <torch/torch.h>

#include <map>
#include <memory>
