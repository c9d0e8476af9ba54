// Where enqueue's pointers point to: a GPU's memory, or the host's for emulated kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

namespace harness {

using Bytes = std::vector<uint8_t>;

class Memory {
public:
  virtual ~Memory() = default;
  virtual void *allocate(size_t bytes) = 0;
  virtual void release(void *pointer) = 0;
  virtual void upload(void *to, const Bytes &from) = 0;
  virtual Bytes download(const void *from, size_t bytes) = 0;
  // Does `work` on a stream and waits; on a GPU once directly, then again as a captured graph
  // before which `between` runs. Says what went wrong, nothing if all went well.
  virtual std::string run(const std::function<int32_t(cudaStream_t)> &work,
                          const std::function<void()> &between) = 0;
};

std::unique_ptr<Memory> host_memory();

// Throws std::runtime_error where there is no GPU.
std::unique_ptr<Memory> device_memory();

// Name of the GPU, empty where there is none.
std::string device_name();

// Bytes in a memory between two guards; starts as all ones, NaN in every float type.
class Buffer {
public:
  Buffer(Memory &memory, size_t bytes);
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  ~Buffer() { memory_.release(start_); }

  void *pointer() const { return static_cast<uint8_t *>(start_) + kGuard; }
  void set(const Bytes &bytes) { memory_.upload(pointer(), bytes); }
  Bytes get() const { return memory_.download(pointer(), bytes_); }
  void poison() { set(Bytes(bytes_, 0xff)); }
  // Whether nothing was written outside.
  bool intact() const;

private:
  static constexpr size_t kGuard = 512;
  Memory &memory_;
  size_t bytes_;
  void *start_;
};

} // namespace harness
