// Messages of the adapters: to TensorRT's logger, or to stderr where there is none for us.
#pragma once

#include <NvInferRuntime.h>

namespace fasterseg::trt {

void set_logger_finder(nvinfer1::ILoggerFinder *finder) noexcept;

// Reports an error of `plugin` (printf's format) and returns the -1 that TensorRT is to be given.
[[gnu::format(printf, 2, 3)]] int32_t fail(const char *plugin, const char *format, ...) noexcept;

} // namespace fasterseg::trt
