// What was checked and how it went, as JSON.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace harness {

class Report {
public:
  // What the checks to come are about.
  void subject(const std::string &name) { subject_ = name; }

  // Records a check; gives back whether it passed. `detail` says what was found where it did not.
  bool check(bool passed, const std::string &what, const std::string &detail = "");

  int failed() const;
  size_t size() const { return checks_.size(); }

  // `facts` are names and values (JSON as they are) that stand before the checks.
  std::string json(const std::vector<std::pair<std::string, std::string>> &facts) const;

private:
  struct Check {
    bool passed;
    std::string subject, what, detail;
  };
  std::string subject_;
  std::vector<Check> checks_;
};

// A JSON string.
std::string quoted(const std::string &text);

} // namespace harness
