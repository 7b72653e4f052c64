#include "bench/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace chorus {
namespace {

constexpr double width = 960, height = 380;
constexpr double head_height = 64;                               // title and note
constexpr double left = 64, right = 16, above = 58, below = 52;  // around a panel's field
constexpr int y_ticks = 5;
constexpr double tick_width = 45;  // of a tick's number on the x axis

// Colours of Okabe and Ito's palette for all kinds of sight, darkened for thin lines on white.
constexpr std::string_view style = R"(<style>
  svg { background: #ffffff; font: 12px system-ui, "DejaVu Sans", sans-serif; }
  text { fill: #1f2328; } .quiet { fill: #59636e; } .title { font-size: 16px; font-weight: 600; } .panel { font-size: 13px; font-weight: 600; }
  .grid { stroke: #d1d9e0; } .axis { stroke: #59636e; } .reference { stroke: #59636e; stroke-dasharray: 5 4; }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .s0 { stroke: #0063a5; } .s1 { stroke: #b35900; } .s2 { stroke: #a3246b; } .s3 { stroke: #00704f; }
  .m0 { fill: #0063a5; } .m1 { fill: #b35900; } .m2 { fill: #a3246b; } .m3 { fill: #00704f; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; } text { fill: #f0f6fc; } .quiet { fill: #9198a1; } .grid { stroke: #2f3742; }
    .axis { stroke: #9198a1; } .reference { stroke: #9198a1; }
    .s0 { stroke: #56b4e9; } .s1 { stroke: #f0a33c; } .s2 { stroke: #e58bc0; } .s3 { stroke: #3fc79a; }
    .m0 { fill: #56b4e9; } .m1 { fill: #f0a33c; } .m2 { fill: #e58bc0; } .m3 { fill: #3fc79a; }
  }
</style>
)";

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else if (c >= ' ' || static_cast<unsigned char>(c) >= 0x80)
      out += c;
  }
  return out;
}

std::string text_at(double x, double y, std::string_view anchor, std::string_view kind, std::string_view text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" class=\"{}\">{}</text>\n", x, y, anchor, kind,
                     escaped(text));
}

std::string number(double value) {
  return value < 10'000 ? fmt::format("{:.6g}", value) : fmt::format("{:.6g}k", value / 1000);
}

std::string line_between(double x1, double y1, double x2, double y2, std::string_view kind) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n", x1, y1, x2, y2,
                     kind);
}

// A shape for each series, so that nobody needs the colours.
std::string mark_at(double x, double y, std::size_t series) {
  constexpr double r = 4;
  switch (series % 4) {
    case 0:
      return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\" class=\"m0\"/>\n", x, y, r);
    case 1:
      return fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{}\" height=\"{}\" class=\"m1\"/>\n", x - r, y - r,
                         2 * r, 2 * r);
    case 2:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l{} {}h-{}z\" class=\"m2\"/>\n", x, y - r - 1, r + 1, 2 * r + 1,
                         2 * r + 2);
    default:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l{} {}l-{} {}l-{} -{}z\" class=\"m3\"/>\n", x, y - r - 1, r + 1,
                         r + 1, r + 1, r + 1, r + 1, r + 1);
  }
}

class Panel {
 public:
  Panel(const PlotPanel& panel, double x, double panel_width)
      : panel_(panel),
        left_(x + left),
        right_(x + panel_width - right),
        top_(head_height + above),
        bottom_(height - below) {
    double x_max = 0, y_max = 0;
    for (const PlotSeries& series : panel.series) {
      for (const auto& [at, value] : series.points) {
        x_max = std::max(x_max, at);
        y_max = std::max(y_max, value);
      }
    }
    x_ticks_ =
        ticks_up_to(x_max, std::max(2, static_cast<int>((right_ - left_) / tick_width)), panel.has_whole_x ? 1 : 0);
    y_ticks_ = ticks_up_to(y_max, y_ticks);
  }

  std::string svg() const {
    std::string out = text_at(left_, top_ - 38, "start", "panel", panel_.title);
    for (const double tick : y_ticks_) {
      out += line_between(left_, y(tick), right_, y(tick), tick == 0 ? "axis" : "grid");
      out += text_at(left_ - 8, y(tick) + 4, "end", "quiet", number(tick));
    }
    for (const double tick : x_ticks_) {
      out += line_between(x(tick), bottom_, x(tick), bottom_ + 4, "axis");
      out += text_at(x(tick), bottom_ + 18, "middle", "quiet", number(tick));
    }
    out += text_at((left_ + right_) / 2, bottom_ + 40, "middle", "", panel_.x_label);
    const double middle = (top_ + bottom_) / 2;
    out += fmt::format("<text transform=\"translate({:.1f} {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
                       left_ - 48, middle, escaped(panel_.y_label));
    for (std::size_t i = 0; i < panel_.series.size(); ++i) out += series(i);
    return out + legend();
  }

 private:
  double x(double value) const { return left_ + value / x_ticks_.back() * (right_ - left_); }
  double y(double value) const { return bottom_ - value / y_ticks_.back() * (bottom_ - top_); }

  std::string series(std::size_t index) const {
    const PlotSeries& series = panel_.series[index];
    std::string points, marks;
    for (const auto& [at, value] : series.points) {
      points += fmt::format("{:.1f},{:.1f} ", x(at), y(value));
      if (!series.is_reference && series.points.size() <= 30) marks += mark_at(x(at), y(value), index);
    }
    const std::string kind = series.is_reference ? "reference" : fmt::format("s{}", index % 4);
    return fmt::format("<polyline points=\"{}\" class=\"line {}\"/>\n", points, kind) + marks;
  }

  std::string legend() const {
    constexpr double letter = 6.6, gap = 18, sample = 22;
    std::string out;
    double at = left_;
    const double line = top_ - 18;
    for (std::size_t i = 0; i < panel_.series.size() && panel_.series.size() > 1; ++i) {
      const PlotSeries& series = panel_.series[i];
      const std::string kind = series.is_reference ? "reference" : fmt::format("s{}", i % 4);
      out += line_between(at, line, at + sample, line, "line " + kind);
      if (!series.is_reference) out += mark_at(at + sample / 2, line, i);
      out += text_at(at + sample + 5, line + 4, "start", "", series.name);
      at += sample + 5 + letter * static_cast<double>(series.name.size()) + gap;
    }
    return out;
  }

  const PlotPanel& panel_;
  double left_, right_, top_, bottom_;
  std::vector<double> x_ticks_, y_ticks_;
};

}  // namespace

std::vector<double> ticks_up_to(double high, int count, double least) {
  if (!(high > 0)) high = 1;
  const double rough = std::max(high / count, least);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5, 2, 1}) {
    if (factor * power >= rough * (1 - 1e-9)) step = factor * power;
  }
  std::vector<double> ticks = {0};
  while (ticks.back() < high * (1 - 1e-9)) ticks.push_back(step * static_cast<double>(ticks.size()));
  return ticks;
}

std::string svg_of(const Plot& plot) {
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" "
      "aria-label=\"{2}\">\n<title>{2}</title>\n",
      width, height, escaped(plot.title));
  out += style;
  out += fmt::format("<rect width=\"{}\" height=\"{}\" fill=\"none\"/>\n", width, height);
  out += text_at(16, 28, "start", "title", plot.title) + text_at(16, 48, "start", "quiet", plot.note);
  const double panel_width = width / static_cast<double>(std::max<std::size_t>(plot.panels.size(), 1));
  for (std::size_t i = 0; i < plot.panels.size(); ++i) {
    out += Panel(plot.panels[i], static_cast<double>(i) * panel_width, panel_width).svg();
  }
  return out + "</svg>\n";
}

}  // namespace chorus
