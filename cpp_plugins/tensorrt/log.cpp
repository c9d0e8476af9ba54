#include "log.h"

#include <atomic>
#include <cstdarg>
#include <cstdio>

#include <dlfcn.h>

namespace fasterseg::trt {
namespace {

std::atomic<nvinfer1::ILoggerFinder *> logger_finder{nullptr};

// Major version of the library whose code an object runs, -1 where that library does not say.
int32_t major_of(const void *object) noexcept {
  Dl_info maker;
  if (!dladdr(*static_cast<void *const *>(object), &maker)) {
    return -1;
  }
  void *const library = dlopen(maker.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  void *const symbol = dlsym(library ? library : RTLD_DEFAULT, "getInferLibMajorVersion");
  const int32_t major = symbol ? reinterpret_cast<int32_t (*)()>(symbol)() : -1;
  if (library) {
    dlclose(library);
  }
  return major;
}

// TensorRT 11 put a base class under ILogger and ILoggerFinder, so their functions have other
// places in the table than in 10: a call across would run the wrong one. Plugins and creators
// are versioned and alike in both, so loggers are all that one library for both must mind.
bool is_of_our_layout(const nvinfer1::ILoggerFinder *finder) noexcept {
  const int32_t major = major_of(finder);
  constexpr int32_t kRtx = 1; // TensorRT-RTX counts from 1 and has the layout of 11
  const bool modern = major >= 11 || major == kRtx;
  return major > 0 && modern == (NV_TENSORRT_MAJOR >= 11);
}

} // namespace

void set_logger_finder(nvinfer1::ILoggerFinder *finder) noexcept {
  logger_finder = finder && is_of_our_layout(finder) ? finder : nullptr;
}

int32_t fail(const char *plugin, const char *format, ...) noexcept {
  char text[512];
  const int start = std::snprintf(text, sizeof text, "fasterseg::%s: ", plugin);
  va_list values;
  va_start(values, format);
  std::vsnprintf(text + start, sizeof text - static_cast<size_t>(start), format, values);
  va_end(values);
  nvinfer1::ILoggerFinder *const finder = logger_finder;
  nvinfer1::ILogger *const logger = finder ? finder->findLogger() : nullptr;
  if (logger) {
    logger->log(nvinfer1::ILogger::Severity::kERROR, text);
  } else {
    std::fprintf(stderr, "%s\n", text);
  }
  return -1;
}

} // namespace fasterseg::trt
