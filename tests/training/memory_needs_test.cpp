#include "training/memory_needs.h"

#include "core/memory.h"
#include "tests/catch.h"
#include "tests/training/support.h"

namespace regla::test {

TEST_CASE("what an update takes of memory is known before it is done") {
  for (const char* mixer : {R"("regla")", R"({"type": "softmax"})"}) {
    TrainingConfig config = small_config(mixer);
    config.model.hidden = 64;
    config.model.mlp = 256;
    config.model.sequence_length = 128;
    config.batch_size = 16;
    config.micro_batches = 2;
    Decoder decoder(config.model, 3, activation_type(config.precision));
    const MemoryNeeds needs = measure_memory_needs(config, decoder);
    CHECK(needs.moments == 2 * needs.weights);  // no copies in F64

    const TokenStream text = small_text(20000);
    Decoder other(config.model, 3, activation_type(config.precision));
    const int64_t before = memory({}).stats().bytes_in_use;
    memory({}).reset_peak();
    Trainer trainer(config, other, text, kEnd);
    trainer.step();
    const int64_t peak = memory({}).stats().peak_bytes_in_use - before + needs.weights;
    CAPTURE(mixer, needs.with(8), peak);
    CHECK(static_cast<double>(needs.with(8)) == Approx(static_cast<double>(peak)).epsilon(0.02));
  }
}

}  // namespace regla::test
