#include "backends/cuda/routine.h"

namespace regla::cuda {
namespace {

/// Destroys what the runtime made at the end of a scope.
struct Destroyed {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
  void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};
using Graph = std::unique_ptr<CUgraph_st, Destroyed>;
using RunnableGraph = std::unique_ptr<CUgraphExec_st, Destroyed>;

/// What is asked of the stream while it lives goes into a graph instead.
class Capture {
 public:
  explicit Capture(cudaStream_t stream) : stream_(stream) {
    // Memory is mapped meanwhile, which is no work of the stream: that must be allowed.
    require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "begin a routine");
  }
  ~Capture() {
    if (stream_ != nullptr) static_cast<void>(end());  // after an error: nothing was run
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  Graph take() {
    Graph graph = end();
    require(status_, "record a routine");
    return graph;
  }

 private:
  Graph end() {
    cudaGraph_t graph = nullptr;
    status_ = cudaStreamEndCapture(stream_, &graph);
    stream_ = nullptr;
    static_cast<void>(cudaGetLastError());  // or the next launch would report it
    return Graph(graph);
  }

  cudaStream_t stream_;
  cudaError_t status_ = cudaSuccess;
};

class GraphReplay : public Replay {
 public:
  explicit GraphReplay(const Context& context) : on_(context) {}

  void run(const std::function<void()>& work) override {
    require(cudaSetDevice(on_.device.index), "select the GPU");
    if (!is_warm_) {
      work();
      is_warm_ = true;
      return;
    }
    if (!graph_) graph_ = recorded(work);
    require(cudaGraphLaunch(graph_.get(), on_.stream), "run a routine");
  }

 private:
  RunnableGraph recorded(const std::function<void()>& work) const {
    Capture capture(on_.stream);
    work();
    const Graph graph = capture.take();
    cudaGraphExec_t runnable = nullptr;
    require(cudaGraphInstantiate(&runnable, graph.get(), 0), "prepare a routine");
    return RunnableGraph(runnable);
  }

  const Context& on_;
  bool is_warm_ = false;
  RunnableGraph graph_;
};

}  // namespace

std::unique_ptr<Replay> make_replay(const Context& context) {
  return std::make_unique<GraphReplay>(context);
}

}  // namespace regla::cuda
