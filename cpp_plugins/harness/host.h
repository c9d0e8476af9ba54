// The harness in TensorRT's place: its logger, and the library that it loads plugins from.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <NvInferRuntime.h>

namespace harness {

// Keeps what plugins say.
class Logger final : public nvinfer1::ILogger {
public:
  void log(Severity severity, const nvinfer1::AsciiChar *text) noexcept override;
  // Errors since the last call.
  std::vector<std::string> taken();

private:
  std::vector<std::string> errors_;
};

class LoggerFinder final : public nvinfer1::ILoggerFinder {
public:
  explicit LoggerFinder(Logger &logger) : logger_(logger) {}
  nvinfer1::ILogger *findLogger() override { return &logger_; }

private:
  Logger &logger_;
};

using PluginPointer = std::unique_ptr<nvinfer1::IPluginV3>;

// A plugin library, loaded as TensorRT loads it. Stays loaded: its objects outlive this one.
class Library {
public:
  // Throws std::runtime_error naming what is missing.
  Library(const std::string &path, LoggerFinder &finder);

  const std::vector<nvinfer1::IPluginCreatorV3One *> &creators() const { return creators_; }
  // Null where there is none of this name.
  nvinfer1::IPluginCreatorV3One *creator(const std::string &name) const;

  int version() const { return version_; }
  int headers() const { return headers_; }
  // Whether loggers are laid out as ours: they are not across TensorRT 10 and 11.
  bool shares_loggers() const;

private:
  std::vector<nvinfer1::IPluginCreatorV3One *> creators_;
  int version_ = 0, headers_ = 0;
};

} // namespace harness
