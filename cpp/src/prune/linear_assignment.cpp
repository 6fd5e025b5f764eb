#include "linear_assignment.h"

#include <limits>
#include <utility>

#include <hemostat/interrupt.h>

namespace hemostat::prune {

namespace {

constexpr int64_t kNone = -1;

// Costs are negative values. Prices of rows and columns keep every reduced cost, cost − row price − column price, at 0
// or above, and at 0 for assigned pairs.
class Assignment {
 public:
  Assignment(const float* value, int64_t n)
      : value_(value),
        n_(n),
        row_price_(n, 0.0),
        column_price_(n, 0.0),
        distance_(n),
        before_(n),
        column_of_(n, kNone),
        row_of_(n, kNone) {}

  std::vector<int64_t> solve() {
    for (int64_t row = 0; row < n_; ++row) {
      check_interrupt();
      augment(row);
    }
    return std::move(column_of_);
  }

 private:
  // Assigns one more row: along the shortest path, by reduced costs, from it to a free column.
  void augment(int64_t start) {
    distance_.assign(n_, std::numeric_limits<double>::infinity());
    open_.resize(n_);
    for (int64_t j = 0; j < n_; ++j) open_[j] = j;
    closed_.clear();

    double length = 0;
    int64_t row = start, end = kNone;
    while (end == kNone) {
      const float* values = value_ + row * n_;
      const double base = length - row_price_[row];
      size_t nearest = 0;
      for (size_t i = 0; i < open_.size(); ++i) {
        const int64_t column = open_[i];
        const double through = base - values[column] - column_price_[column];
        if (through < distance_[column]) {
          distance_[column] = through;
          before_[column] = row;
        }
        const double gain = distance_[open_[nearest]] - distance_[column];
        if (gain > 0 || (gain == 0 && row_of_[column] == kNone))
          nearest = i;  // of equal ones a free one ends the search
      }
      const int64_t column = open_[nearest];
      length = distance_[column];
      open_[nearest] = open_.back();
      open_.pop_back();
      closed_.push_back(column);
      if (row_of_[column] == kNone) {
        end = column;
      } else {
        row = row_of_[column];
      }
    }

    row_price_[start] += length;
    for (const int64_t column : closed_) {
      const double slack = length - distance_[column];
      column_price_[column] -= slack;
      if (row_of_[column] != kNone) row_price_[row_of_[column]] += slack;
    }
    for (int64_t column = end; column != kNone;) {
      const int64_t taker = before_[column];
      row_of_[column] = taker;
      std::swap(column_of_[taker], column);
      if (taker == start) break;
    }
  }

  const float* value_;
  int64_t n_;
  std::vector<double> row_price_, column_price_;
  std::vector<double> distance_;  // of each column from the row that is being assigned
  std::vector<int64_t> before_;   // the row before each column on its shortest path
  std::vector<int64_t> column_of_, row_of_;
  std::vector<int64_t> open_, closed_;  // columns whose shortest path is not known yet, and is
};

}  // namespace

std::vector<int64_t> largest_assignment(const float* value, int64_t n) { return Assignment(value, n).solve(); }

}  // namespace hemostat::prune
