// Rows split among threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace fasterseg::cpu {

// Calls work(part, first, end) for `threads` runs of [0, count) at once, the last one here; returns
// when all are done. A thread that the system does not give is made up for here.
template <class Work> void split(int64_t count, int threads, const Work &work) {
  const auto first = [=](int part) { return count * part / threads; };
  std::vector<std::thread> team;
  team.reserve(static_cast<std::size_t>(threads - 1));
  int part = 0;
  try {
    for (; part < threads - 1; ++part) {
      team.emplace_back(work, part, first(part), first(part + 1));
    }
  } catch (const std::system_error &) {
    // Parts from here on are done below.
  }
  for (; part < threads; ++part) {
    work(part, first(part), first(part + 1));
  }
  for (std::thread &member : team) {
    member.join();
  }
}

// No more threads than make sense for so many rows.
inline int team_of(int threads, int64_t rows) {
  return static_cast<int>(std::min<int64_t>(threads, rows));
}

} // namespace fasterseg::cpu
