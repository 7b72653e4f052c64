// Line plots as SVG, which any browser shows: panels side by side, each with axes, ticks and a legend; legible on light
// and on dark grounds, whichever the reader's system prefers; no script, nothing from elsewhere. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace chorus {

struct PlotSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // in the order of the line; finite, not negative
  bool is_reference = false;                      // dashed, without marks: what the others are held against
};

// Both axes begin at 0.
struct PlotPanel {
  std::string title, x_label, y_label;
  std::vector<PlotSeries> series;  // up to four
  bool has_whole_x = false;        // the x axis counts something: no tick between two whole numbers
};

struct Plot {
  std::string title, note;        // the note in small letters below the title
  std::vector<PlotPanel> panels;  // up to three; none: there is nothing to show
};

std::string svg_of(const Plot& plot);

// Multiples of 1, 2 or 5 times a power of ten from 0 on, the last one at or above `high`: about `count` of them,
// no closer than `least`.
std::vector<double> ticks_up_to(double high, int count, double least = 0);

}  // namespace chorus
