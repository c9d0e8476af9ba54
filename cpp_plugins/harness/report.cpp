#include "report.h"

#include <algorithm>
#include <cstdio>

namespace harness {

bool Report::check(bool passed, const std::string &what, const std::string &detail) {
  checks_.push_back({passed, subject_, what, passed ? "" : detail});
  return passed;
}

int Report::failed() const {
  return static_cast<int>(
      std::count_if(checks_.begin(), checks_.end(), [](const Check &c) { return !c.passed; }));
}

std::string quoted(const std::string &text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') {
      result += '\\';
      result += letter;
    } else if (static_cast<unsigned char>(letter) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", letter);
      result += escaped;
    } else {
      result += letter;
    }
  }
  return result + '"';
}

std::string Report::json(const std::vector<std::pair<std::string, std::string>> &facts) const {
  std::string text = "{";
  for (const auto &[name, value] : facts) {
    text += quoted(name) + ": " + value + ",\n ";
  }
  text += "\"failed\": " + std::to_string(failed()) + ",\n \"checks\": [";
  const char *separator = "\n  ";
  for (const Check &check : checks_) {
    text += separator;
    text += "{\"subject\": " + quoted(check.subject) + ", \"check\": " + quoted(check.what) +
            ", \"passed\": " + (check.passed ? "true" : "false");
    text += check.detail.empty() ? "}" : ", \"detail\": " + quoted(check.detail) + "}";
    separator = ",\n  ";
  }
  return text + "\n ]}\n";
}

} // namespace harness
