#include "host.h"

#include <stdexcept>

#include <dlfcn.h>

// Plugins ask who made a logger; the harness answers as the TensorRT of its headers would.
extern "C" __attribute__((visibility("default"))) int32_t getInferLibMajorVersion() noexcept {
  return NV_TENSORRT_MAJOR;
}

namespace harness {
namespace {

template <class Function> Function *symbol(void *library, const char *name) {
  void *const found = dlsym(library, name);
  if (!found) {
    throw std::runtime_error(std::string("the library does not export ") + name);
  }
  return reinterpret_cast<Function *>(found);
}

} // namespace

void Logger::log(Severity severity, const nvinfer1::AsciiChar *text) noexcept {
  if (severity <= Severity::kERROR) {
    errors_.emplace_back(text);
  }
}

std::vector<std::string> Logger::taken() {
  std::vector<std::string> errors;
  errors.swap(errors_);
  return errors;
}

Library::Library(const std::string &path, LoggerFinder &finder) {
  void *const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    throw std::runtime_error(dlerror());
  }
  version_ = symbol<int32_t()>(library, "fasterseg_plugins_version")();
  headers_ = symbol<int32_t()>(library, "fasterseg_plugins_headers")();
  symbol<void(nvinfer1::ILoggerFinder *)>(library, "setLoggerFinder")(&finder);
  using GetCreators = nvinfer1::IPluginCreatorInterface *const *(int32_t &);
  int32_t count = 0;
  nvinfer1::IPluginCreatorInterface *const *const found =
      symbol<GetCreators>(library, "getCreators")(count);
  for (int32_t index = 0; index < count; ++index) {
    const std::string kind = found[index]->getInterfaceInfo().kind;
    if (kind != "PLUGIN CREATOR_V3ONE") {
      throw std::runtime_error("a creator is of kind " + kind);
    }
    creators_.push_back(static_cast<nvinfer1::IPluginCreatorV3One *>(found[index]));
  }
}

nvinfer1::IPluginCreatorV3One *Library::creator(const std::string &name) const {
  for (nvinfer1::IPluginCreatorV3One *const creator : creators_) {
    if (name == creator->getPluginName()) {
      return creator;
    }
  }
  return nullptr;
}

bool Library::shares_loggers() const {
  return (headers_ >= 110000) == (NV_TENSORRT_MAJOR >= 11);
}

} // namespace harness
