#include "app/analyse/analyse.h"

namespace regla::app {

const std::string_view kVariancePlot = R"gp(
set terminal svg size 380*panels,420 font 'sans,13' background 'white'
set multiplot layout 1,panels
set logscale x 2
set logscale y
set format y '10^{%T}'
set xlabel 'dimension d' offset 0,0.5
set ylabel 'standard deviation'
set xrange [lowest / 1.3:highest * 1.3]
set grid ytics lc rgb '#dddddd'
set border 3
set tics nomirror
set bmargin 7
set key below center horizontal maxcols 2 samplen 1.5 width -1
set yrange [1e-3:(runs > 0 ? 1e7 : 1e3)]
of(source, name) = strcol('source') eq source ? column(name) : NaN
# Runs have names of their own.
is_run(name) = strcol('source') ne 'gaussian' && strcol('source') ne 'one layer' ? column(name) : NaN

set title 'normal numbers'
plot csv using 'dimension':(of('gaussian', 'exp')) with points pt 7 ps 0.7 lc rgb '#0060ad' title 'exp', \
     '' using 'dimension':(of('gaussian', 'exp_theorem')) with lines lc rgb '#0060ad' title 'Theorem 3.1', \
     '' using 'dimension':(of('gaussian', 'identity')) with points pt 7 ps 0.7 lc rgb '#2e8b57' title 'identity', \
     '' using 'dimension':(of('gaussian', 'identity_theorem')) with lines lc rgb '#2e8b57' title 'Theorem 3.1', \
     '' using 'dimension':(of('gaussian', 'safe_exp')) with points pt 6 ps 0.7 lc rgb '#c04000' title 'safe exp', \
     '' using 'dimension':(of('gaussian', 'safe_exp_theorem')) with lines dt 2 lc rgb '#c04000' title 'Theorem A.1'

if (panels == 3) {
  set title 'text, one layer before training'.(runs > 0 ? '; × runs' : '')
  plot csv using 'dimension':(of('one layer', 'exp')) with points pt 7 ps 0.7 lc rgb '#0060ad' title 'exp', \
       '' using 'dimension':(of('one layer', 'exp_theorem')) with lines lc rgb '#0060ad' title 'Theorem 3.1', \
       '' using 'dimension':(of('one layer', 'identity')) with points pt 7 ps 0.7 lc rgb '#2e8b57' title 'identity', \
       '' using 'dimension':(of('one layer', 'identity_theorem')) with lines lc rgb '#2e8b57' title 'Theorem 3.1', \
       '' using 'dimension':(of('one layer', 'safe_exp')) with points pt 6 ps 0.7 lc rgb '#c04000' title 'safe exp', \
       '' using 'dimension':(is_run('exp')) with points pt 2 ps 0.7 lc rgb '#0060ad' notitle, \
       '' using 'dimension':(is_run('identity')) with points pt 2 ps 0.7 lc rgb '#2e8b57' notitle, \
       '' using 'dimension':(is_run('safe_exp')) with points pt 2 ps 0.7 lc rgb '#c04000' notitle
}

set title 'normal numbers, scaled'
plot csv using 'dimension':(of('gaussian', 'exp_times_sqrt_d')) with linespoints pt 7 ps 0.7 lc rgb '#7799bb' title 'exp / √d', \
     '' using 'dimension':(of('gaussian', 'exp_times_variance')) with linespoints pt 7 ps 0.7 lc rgb '#0060ad' title 'exp / e√(d(e²-1))', \
     '' using 'dimension':(of('gaussian', 'identity_times_sqrt_d')) with points pt 4 ps 1 lc rgb '#2e8b57' title 'identity / √d', \
     '' using 'dimension':(of('gaussian', 'safe_exp_times_variance')) with linespoints pt 6 ps 0.7 lc rgb '#c04000' title 'safe exp / e√(d(e²-1))'
unset multiplot
)gp";

const std::string_view kGateGradientPlot = R"gp(
set terminal svg size 1140,400 font 'sans,13' background 'white'
set multiplot layout 1,3
set xrange [0:1]
set grid ytics lc rgb '#dddddd'
set border 3
set tics nomirror
set bmargin 6.5
set key below center horizontal maxcols 3 samplen 1
set palette defined (0 '#0060ad', 0.5 '#888888', 1 '#c04000')
unset colorbox
set cbrange [0:1]
of(r, name) = abs(column('r') - r) < 1e-12 ? column(name) : NaN
first = real(word(values, 1))

set xlabel 'gate activation g' offset 0,0.5
set title '∂F/∂z_g' noenhanced
set yrange [0:0.3]
plot for [r in values] csv using (of(real(r), 'g')):'d_z_g' with lines lw 1.5 lc palette cb real(r) title 'r = '.r, \
     '' using (of(first, 'g')):'sigmoid' with lines lw 1.5 dt 2 lc rgb 'black' title 'sigmoid'

set title '∂F/∂z_r' noenhanced
set yrange [0:0.15]
plot for [r in values] csv using (of(real(r), 'g')):'d_z_r' with lines lw 1.5 lc palette cb real(r) title 'r = '.r

set title '∂F/∂z_g against the gate itself' noenhanced
set xlabel 'gate activation F' offset 0,0.5
set yrange [0:0.3]
plot for [r in values] csv using (of(real(r), 'F')):'d_z_g' with lines lw 1.5 lc palette cb real(r) title 'r = '.r, \
     '' using (of(first, 'g')):'sigmoid' with lines lw 1.5 dt 2 lc rgb 'black' title 'sigmoid'
unset multiplot
)gp";

const std::string_view kGateHistogramPlot = R"gp(
set terminal svg size 480*|panels|,400 font 'sans,13' background 'white'
set multiplot layout 1,|panels|
array colours[6] = ['#0060ad', '#c04000', '#2e8b57', '#8040a0', '#b8860b', '#555555']
colour(i) = colours[(i - 1) % 6 + 1]
set logscale y
set xrange [0:1]
set yrange [1e-5:1]
set format y '10^{%T}'
set xlabel 'gate activation F' offset 0,0.5
set ylabel 'fraction of gates'
set border 3
set tics nomirror
set grid ytics lc rgb '#dddddd'
set bmargin 6.5
set key below center horizontal maxcols 2 samplen 1.5 noenhanced
of(panel, name, stage) = strcol('panel') eq panel && strcol('series') eq name && strcol('stage') eq stage && strcol('layer') eq 'all'
centre(x) = (column('from') + column('to')) / 2
do for [p = 1:|panels|] {
  set title panels[p] noenhanced
  plot for [s = 1:|series|] csv using (of(panels[p], series[s], 'before') ? centre(0) : NaN):'fraction' with histeps dt 3 lw 1.5 lc rgb colour(s) title series[s].' before', \
       for [s = 1:|series|] csv using (of(panels[p], series[s], 'after') ? centre(0) : NaN):'fraction' with histeps lw 1.5 lc rgb colour(s) title series[s].' after'
}
unset multiplot
)gp";

const std::string_view kSaturationPlot = R"gp(
set terminal svg size 1140,400 font 'sans,13' background 'white'
set multiplot layout 1,3
array colours[6] = ['#0060ad', '#c04000', '#2e8b57', '#8040a0', '#b8860b', '#555555']
colour(i) = colours[(i - 1) % 6 + 1]
set xlabel 'layer' offset 0,0.5
set xtics 1
set xrange [-0.3:layers - 0.7]
set border 3
set tics nomirror
set grid ytics lc rgb '#dddddd'
set bmargin 6.5
set key below center horizontal maxcols 2 samplen 1.5 noenhanced
of(name) = strcol('run') eq name && strcol('layer') ne 'all' ? column('layer') : NaN

set title 'saturated gates'
set ylabel 'fraction of gates'
set yrange [0:1]
plot for [i = 1:|runs|] csv using (of(runs[i])):'below_0.05' with linespoints pt 6 lc rgb colour(i) title runs[i].': F < 0.05', \
     for [i = 1:|runs|] csv using (of(runs[i])):'above_0.95' with linespoints pt 7 lc rgb colour(i) title runs[i].': F > 0.95'

set title 'gradient'
set ylabel 'mean over gates'
set yrange [0:0.25]
plot for [i = 1:|runs|] csv using (of(runs[i])):'gradient' with linespoints pt 7 lc rgb colour(i) title runs[i].': |∂F/∂z_g|', \
     for [i = 1:|runs|] csv using (of(runs[i])):'sigmoid_gradient' with linespoints pt 6 dt 2 lc rgb colour(i) title runs[i].': g(1-g)', \
     for [i = 1:|runs|] csv using (of(runs[i])):'sigmoid_gradient_at_value' with linespoints pt 4 dt 3 lc rgb colour(i) title runs[i].': F(1-F)'

set title 'effective memory'
set ylabel 'tokens'
set yrange [0:*]
plot for [i = 1:|runs|] csv using (of(runs[i])):'memory_tokens' with linespoints pt 7 lc rgb colour(i) title runs[i]
unset multiplot
)gp";

const std::string_view kLengthsPlot = R"gp(
set terminal svg size 720,420 font 'sans,13' background 'white'
set logscale x 2
set xlabel 'tokens before, up to'
set ylabel 'perplexity'
set xrange [shortest / 1.2:longest * 1.2]
set yrange [0:*]
set border 3
set tics nomirror
set grid ytics lc rgb '#dddddd'
set key below noenhanced
# Where the model was trained to.
set arrow from trained, graph 0 to trained, graph 1 nohead dt 2 lc rgb '#888888'
plot csv using 'end':'ppl' with linespoints pt 7 ps 0.7 lw 1.5 lc rgb '#0060ad' title name
)gp";

}  // namespace regla::app
