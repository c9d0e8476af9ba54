// The work itself: enqueue against the reference, or its refusal where there is no GPU.
#pragma once

#include "lifecycle.h"
#include "memory.h"

namespace harness {

// In every layout that the plugin takes: results, guards, inputs left alone.
void check_results(const Library &library, const Node &node, Memory &memory, Report &report);

// Without a GPU enqueue must give an error, and say it where loggers are alike.
void check_no_device(const Library &library, Logger &logger, const Node &node, Report &report);

} // namespace harness
