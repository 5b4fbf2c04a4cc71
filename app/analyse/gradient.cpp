#include <cmath>

#include "analyses/gate_analysis.h"
#include "app/analyse/analyse.h"

namespace regla::app {
namespace {

struct GradientArguments {
  std::string out;
  std::vector<double> refine = {0.05, 0.25, 0.5, 0.75, 0.95};
  int64_t points = 99;
};

/// z with sigma(z) = p
double logit(double p) { return std::log(p) - std::log1p(-p); }

/// The refined gate for one r at g = 1/(n+1) ... n/(n+1), beside the plain sigmoid's g (1 - g).
Json curve(double r, int64_t points) {
  std::vector<double> g, z;
  for (int64_t i = 1; i <= points; ++i) {
    g.push_back(static_cast<double>(i) / static_cast<double>(points + 1));
    z.push_back(logit(g.back()));
  }
  const Tensor z_g = Tensor::of({points}, z), z_r = Tensor::full({points}, logit(r), DType::F64);
  const GateGradient refined = gate_gradient(z_g, z_r), sigmoid = gate_gradient(z_g, {});
  Json rows = Json::array();
  for (int64_t i = 0; i < points; ++i) {
    const double F = refined.F.data<double>()[i];
    rows.push_back({{"r", r},
                    {"g", g[static_cast<size_t>(i)]},
                    {"F", F},
                    {"d_z_g", refined.d_z_g.data<double>()[i]},
                    {"d_z_r", refined.d_z_r.data<double>()[i]},
                    {"sigmoid", sigmoid.d_z_g.data<double>()[i]},
                    {"sigmoid_at_F", F * (1 - F)}});
  }
  return rows;
}

std::string times_sigmoid(const Json& point) {
  const double ratio = point["d_z_g"].get<double>() / point["sigmoid"].get<double>();
  return rounded(ratio, 4) + " g(1-g) at g = " + rounded(point["g"].get<double>(), 3);
}

int gate_gradient_report(const GradientArguments& arguments) {
  make_report_folder(arguments.out);
  Json rows = Json::array();
  std::string values;
  std::printf("gradient dF/dz_g of the refined gate\n");
  for (const double r : arguments.refine) {
    check(r > 0 && r < 1, "[analyse] expected --refine between 0 and 1, got ", r);
    const Json points = curve(r, arguments.points);
    rows.insert(rows.end(), points.begin(), points.end());
    values += " " + Json(r).dump();
    print_row("  r = " + rounded(r),
              times_sigmoid(points.front()) + ", " + times_sigmoid(points.back()));
  }
  write_report(arguments.out,
               {.name = "gate-gradient",
                .settings = {{"refine", arguments.refine}, {"points", arguments.points}},
                .summary = {},
                .rows = rows,
                .variables = "values = '" + values + "'\n",
                .script = kGateGradientPlot});
  return 0;
}

}  // namespace

void add_gate_gradient(CLI::App& analyse, Action& action) {
  auto arguments = std::make_shared<GradientArguments>();
  CLI::App* command = analyse.add_subcommand(
      "gate-gradient", "Figure 3: gradient of the refined gate against the plain sigmoid's");
  add_report_folder(*command, arguments->out);
  add_numbers(*command, "--refine", arguments->refine, "values of the refining gate r");
  add_number(*command, "--points", arguments->points, "points per curve", 1, 100000);
  command->callback(
      [arguments, &action] { action = [arguments] { return gate_gradient_report(*arguments); }; });
}

}  // namespace regla::app
