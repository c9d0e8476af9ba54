// Drives every plugin of a library through its life, without TensorRT.
//
//   fasterseg_harness LIBRARY [--memory auto|device|host|none]
//
// `device` gives enqueue a GPU's memory, `host` the host's (for kernels built for the CPU), `none`
// expects enqueue to fail; `auto` is `device` where there is a GPU, else `none`. JSON goes to
// standard output. Exit codes: 0 all passed, 1 a check failed, 2 wrong use or no such library.
#include <cstdio>
#include <exception>
#include <string>

#include "execution.h"

namespace {

using namespace harness;

std::string version(int number) {
  return quoted(std::to_string(number / 10000) + "." + std::to_string(number / 100 % 100) + "." +
                std::to_string(number % 100));
}

void drive(const Library &library, Logger &logger, Memory *memory, Report &report) {
  for (const Node &node : good_nodes()) {
    report.subject(described(node));
    check_build(library, node, report);
    if (memory) {
      check_results(library, node, *memory, report);
    } else {
      check_no_device(library, logger, node, report);
    }
  }
  for (const Refused &refused : bad_nodes()) {
    report.subject(described(refused.node) + ", where " + refused.why);
    check_refusal(library, logger, refused, report);
  }
}

int run(const std::string &path, const std::string &asked) {
  Logger logger;
  LoggerFinder finder(logger);
  const Library library(path, finder);
  const std::string device = device_name();
  const std::string kind = asked != "auto" ? asked : device.empty() ? "none" : "device";
  std::unique_ptr<Memory> memory;
  if (kind != "none") {
    memory = kind == "device" ? device_memory() : host_memory();
  }
  Report report;
  report.subject("library");
  report.check(library.version() == 1, "version", std::to_string(library.version()));
  report.check(library.creators().size() == 5, "five creators");
  drive(library, logger, memory.get(), report);
  const std::string text = report.json({{"schema", "1"},
                                        {"library_version", std::to_string(library.version())},
                                        {"library_headers", version(library.headers())},
                                        {"harness_headers", version(NV_TENSORRT_VERSION)},
                                        {"memory", quoted(kind)},
                                        {"device", device.empty() ? "null" : quoted(device)}});
  std::fputs(text.c_str(), stdout);
  return report.failed() == 0 ? 0 : 1;
}

} // namespace

int main(int count, char **arguments) {
  const bool chosen = count == 4 && std::string(arguments[2]) == "--memory";
  const std::string memory = chosen ? arguments[3] : "auto";
  const bool known = memory == "auto" || memory == "device" || memory == "host" || memory == "none";
  if ((count != 2 && !chosen) || !known) {
    std::fprintf(stderr, "usage: %s LIBRARY [--memory auto|device|host|none]\n", arguments[0]);
    return 2;
  }
  try {
    return run(arguments[1], memory);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s: %s\n", arguments[1], error.what());
    return 2;
  }
}
