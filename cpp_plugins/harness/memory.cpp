#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace harness {
namespace {

class HostMemory final : public Memory {
public:
  void *allocate(size_t bytes) override {
    return std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  }
  void release(void *pointer) override { std::free(pointer); }
  void upload(void *to, const Bytes &from) override {
    std::copy(from.begin(), from.end(), static_cast<uint8_t *>(to));
  }
  Bytes download(const void *from, size_t bytes) override {
    const auto *const first = static_cast<const uint8_t *>(from);
    return {first, first + bytes};
  }
  std::string run(const std::function<int32_t(cudaStream_t)> &work,
                  const std::function<void()> &) override {
    return work(nullptr) == 0 ? "" : "enqueue failed";
  }
};

void require(cudaError_t result) {
  if (result != cudaSuccess) {
    throw std::runtime_error(cudaGetErrorString(result));
  }
}

class DeviceMemory final : public Memory {
public:
  DeviceMemory() { require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~DeviceMemory() override { cudaStreamDestroy(stream_); }

  void *allocate(size_t bytes) override {
    void *pointer = nullptr;
    require(cudaMalloc(&pointer, bytes));
    return pointer;
  }
  void release(void *pointer) override { cudaFree(pointer); }
  void upload(void *to, const Bytes &from) override {
    require(cudaMemcpy(to, from.data(), from.size(), cudaMemcpyHostToDevice));
    require(cudaDeviceSynchronize()); // a copy from pageable memory may return before it is done
  }
  Bytes download(const void *from, size_t bytes) override {
    Bytes result(bytes);
    require(cudaMemcpy(result.data(), from, bytes, cudaMemcpyDeviceToHost));
    return result;
  }

  std::string run(const std::function<int32_t(cudaStream_t)> &work,
                  const std::function<void()> &between) override {
    if (work(stream_) != 0) {
      return "enqueue failed";
    }
    require(cudaStreamSynchronize(stream_));
    between();
    require(cudaDeviceSynchronize());
    // While a stream is captured in this mode, allocating or synchronising anywhere fails.
    require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    const int32_t status = work(stream_);
    cudaGraph_t graph = nullptr;
    const cudaError_t captured = cudaStreamEndCapture(stream_, &graph);
    if (status != 0 || captured != cudaSuccess) {
      return std::string("enqueue cannot be captured: ") + cudaGetErrorString(captured);
    }
    cudaGraphExec_t replay = nullptr;
    require(cudaGraphInstantiate(&replay, graph, 0));
    require(cudaGraphLaunch(replay, stream_));
    require(cudaStreamSynchronize(stream_));
    require(cudaGraphExecDestroy(replay));
    require(cudaGraphDestroy(graph));
    return "";
  }

private:
  cudaStream_t stream_ = nullptr;
};

} // namespace

std::unique_ptr<Memory> host_memory() { return std::make_unique<HostMemory>(); }

std::unique_ptr<Memory> device_memory() { return std::make_unique<DeviceMemory>(); }

std::string device_name() {
  int count = 0;
  cudaDeviceProp properties;
  const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0 &&
                     cudaGetDeviceProperties(&properties, 0) == cudaSuccess;
  return found ? properties.name : "";
}

Buffer::Buffer(Memory &memory, size_t bytes)
    : memory_(memory), bytes_(bytes), start_(memory.allocate(bytes + 2 * kGuard)) {
  memory_.upload(start_, Bytes(bytes + 2 * kGuard, 0xff));
}

bool Buffer::intact() const {
  const Bytes all = memory_.download(start_, bytes_ + 2 * kGuard);
  const auto untouched = [](uint8_t byte) { return byte == 0xff; };
  return std::all_of(all.begin(), all.begin() + kGuard, untouched) &&
         std::all_of(all.end() - kGuard, all.end(), untouched);
}

} // namespace harness
