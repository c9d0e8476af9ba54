// What every adapter is: a plugin that is all of its capabilities itself, and its creator.
#pragma once

#include <algorithm>
#include <cstdint>

#include <NvInferRuntime.h>

namespace fasterseg::trt {

constexpr const char *kNamespace = "fasterseg"; // DOMAIN and PLUGIN_VERSION of
constexpr const char *kVersion = "1";           // fasterseg/graph/functions.py

// The kernels count in 32 bits; what does not fit becomes a size that they refuse.
inline int32_t narrow(int64_t extent) {
  return static_cast<int32_t>(std::min<int64_t>(std::max<int64_t>(extent, -1), INT32_MAX));
}

inline bool is_half_hwc8(const nvinfer1::PluginTensorDesc &tensor) {
  return tensor.type == nvinfer1::DataType::kHALF && tensor.format == nvinfer1::TensorFormat::kHWC8;
}

inline bool is_float_linear(const nvinfer1::PluginTensorDesc &tensor) {
  return tensor.format == nvinfer1::TensorFormat::kLINEAR &&
         (tensor.type == nvinfer1::DataType::kFLOAT || tensor.type == nvinfer1::DataType::kHALF);
}

// One output, no tactics of its own, nothing kept between calls; its name is a literal.
class Plugin : public nvinfer1::IPluginV3,
               public nvinfer1::IPluginV3OneCore,
               public nvinfer1::IPluginV3OneBuild,
               public nvinfer1::IPluginV3OneRuntime {
public:
  explicit Plugin(const char *name) : name_(name) {}

  nvinfer1::IPluginCapability *
  getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore *>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild *>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime *>(this);
    }
    return nullptr;
  }

  const char *getPluginName() const noexcept override { return name_; }
  const char *getPluginVersion() const noexcept override { return kVersion; }
  const char *getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc *, int32_t,
                          const nvinfer1::DynamicPluginTensorDesc *, int32_t) noexcept override {
    return 0;
  }

  // Attributes never change the work for the same shapes, so the name tells timings apart.
  const char *getTimingCacheID() noexcept override { return name_; }
  const char *getMetadataString() noexcept override { return name_; }

  int32_t onShapeChange(const nvinfer1::PluginTensorDesc *, int32_t,
                        const nvinfer1::PluginTensorDesc *, int32_t) noexcept override {
    return 0;
  }

  nvinfer1::IPluginV3 *attachToContext(nvinfer1::IPluginResourceContext *) noexcept override {
    return clone();
  }

private:
  const char *name_;
};

// Creator of one operator type. `Make(name, fields)` gives a Plugin, or null after reporting why.
class Creator final : public nvinfer1::IPluginCreatorV3One {
public:
  using Make = nvinfer1::IPluginV3 *(*)(const char *, const nvinfer1::PluginFieldCollection &);

  Creator(const char *name, Make make, const nvinfer1::PluginFieldCollection &fields)
      : name_(name), make_(make), fields_(fields) {}

  const char *getPluginName() const noexcept override { return name_; }
  const char *getPluginVersion() const noexcept override { return kVersion; }
  const char *getPluginNamespace() const noexcept override { return kNamespace; }

  const nvinfer1::PluginFieldCollection *getFieldNames() noexcept override { return &fields_; }

  // What a plan holds are the same fields that a node has, so both phases are one.
  nvinfer1::IPluginV3 *createPlugin(const char *, const nvinfer1::PluginFieldCollection *fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    return make_(name_, fields ? *fields : nvinfer1::PluginFieldCollection{});
  }

private:
  const char *name_;
  Make make_;
  nvinfer1::PluginFieldCollection fields_;
};

} // namespace fasterseg::trt
