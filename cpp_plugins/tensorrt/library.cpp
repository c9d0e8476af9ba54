// What TensorRT finds when it loads the library.
//
// The creators are handed out by getCreators alone: the static registrar of NVIDIA's headers would
// call into libnvinfer, and one library could then not serve TensorRT 10, 11 and RTX.
#include "fasterseg_plugins.h"
#include "log.h"
#include "upsample_argmax_plugin.h"
#include "zoomed_conv_plugin.h"

// Everything else is hidden, also the kernels' own interface (exports.map).
#pragma GCC visibility push(default)

extern "C" {

nvinfer1::IPluginCreatorInterface *const *getCreators(int32_t &count) {
  using namespace fasterseg::trt;
  static nvinfer1::IPluginCreatorInterface *const creators[] = {
      &upsample_argmax_creator(),  &zoomed_conv_creator(1, 1), &zoomed_conv_creator(1, 2),
      &zoomed_conv_creator(2, 1), &zoomed_conv_creator(2, 2)};
  count = static_cast<int32_t>(sizeof creators / sizeof creators[0]);
  return creators;
}

void setLoggerFinder(nvinfer1::ILoggerFinder *finder) {
  fasterseg::trt::set_logger_finder(finder);
}

int32_t fasterseg_plugins_version(void) { return FASTERSEG_PLUGINS_VERSION; }

int32_t fasterseg_plugins_headers(void) { return NV_TENSORRT_VERSION; }

} // extern "C"

#pragma GCC visibility pop
