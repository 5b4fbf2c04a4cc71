"""Compares `regla eval --tasks` with lm-evaluation-harness on the same local files, offline.

    python3 harness_comparison.py REGLA DATA [--limit N] [--shots 0 5] [--tasks ...]
                                  [--parts requests models] [--table FILE]

REGLA is the program, DATA a folder as $REGLA_DATA in CONTRIBUTING.md: eval/, tokenizer/ and
wikitext-2/. Each task is scored by the program, with `--samples`, and then by the harness with its
own task files. The harness's model repeats the program's log-likelihoods, and only for requests
whose tokens are exactly those that the program scored. So documents, examples, prompts,
continuations, tokens, metrics and errors are all compared, without a model in Python. This is done
for the files as they were published and for the same in the form of data set libraries, with
documents in between that test the rules: white space, empty texts, documents that come twice.

With the part `models` two models are scored by the harness's own model of transformers as well, a
GPT-NeoX checkpoint that the program imports and a trained model that it exports: log-likelihoods
agree to 1e-3 (those of whole texts to 1e-6 of them), and so do all choices between two that differ
by more.

Exits with 77 where Python lacks a package, 1 where something differs.
"""

import argparse
import json
import logging
import math
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false",
                  TRANSFORMERS_OFFLINE="1", DISABLE_MULTIPROC="1", TQDM_DISABLE="1")

try:
    import lm_eval
    from lm_eval import utils
    from lm_eval.api.model import TemplateLM
    import transformers
    if "models" in sys.argv:  # these need more: accelerate
        from lm_eval.models.huggingface import HFLM
        import torch
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

VERSION = "0.4.13"
TASKS = ["boolq", "piqa", "hellaswag", "winogrande", "truthfulqa_mc1", "truthfulqa_mc2", "lambada",
         "wikitext"]
VOCABULARY = 4096  # of the models whose log-likelihoods are compared
END = "<|endoftext|>"
TOLERANCE = 1e-3


def lines_of(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def write_lines(path, documents):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    path.write_text(text, encoding="utf-8")


def pages_of(path):
    """WikiText's pages: a new one begins at each title of one equals sign."""
    pages, page = [], []
    for line in open(path, encoding="utf-8").read().split("\n"):
        bare = line.replace("= = =", "===").replace("= =", "==").strip()
        if bare.startswith("= ") and bare.endswith(" ="):
            if "\n".join(page).strip():
                pages.append("\n".join(page))
            page = []
        page.append(line)
    return pages + ["\n".join(page)]


def library_form(data):
    """The documents of each task in the form that the harness reads, from the published files."""
    read = data / "eval"
    labels = (read / "piqa/valid-labels.lst").read_text().split()
    truthful = json.load(open(read / "truthfulqa/TruthfulQA_data_mc_task.json", encoding="utf-8"))
    def targets(answers):
        return {"choices": list(answers), "labels": list(answers.values())}
    documents = {
        "boolq": [{"question": d["question"], "passage": d["title"] + " -- " + d["passage"],
                   "label": int(d["answer"])} for d in lines_of(read / "boolq/dev.jsonl")],
        "piqa": [{**d, "label": int(label)}
                 for d, label in zip(lines_of(read / "piqa/valid.jsonl"), labels, strict=True)],
        "hellaswag": lines_of(read / "hellaswag/hellaswag_val.subset1000.jsonl"),
        "winogrande": lines_of(read / "winogrande/dev.jsonl"),
        "lambada": lines_of(read / "lambada/lambada_sample20.jsonl"),
        "wikitext": [{"page": page} for page in pages_of(data / "wikitext-2/wiki.test.raw")],
    }
    for name in ["mc1", "mc2"]:
        documents["truthfulqa_" + name] = [
            {"question": d["question"], "mc1_targets": targets(d["mc1_targets"]),
             "mc2_targets": targets(d["mc2_targets"])} for d in truthful]
    return documents


def awkward(documents):
    """The same with documents in front that test the rules, and with the form that HellaSwag has
    before it is cleaned."""
    odd = {name: [] for name in documents}
    odd["boolq"] = [{"question": " is it \u00a0", "passage": "\u3000caf\u00e9 \n\n ", "label": 1},
                    {"question": f"what is {END}", "passage": f"{END} a", "label": 0}]
    odd["piqa"] = [{"goal": "twice ", "sol1": " a", "sol2": "b ", "label": 0}] * 3
    odd["winogrande"] = [
        {"sentence": "Nothing follows _", "option1": "it", "option2": "them ", "answer": "1"},
        {"sentence": "_ \u2003 began.\u00a0", "option1": "\u00c9mile", "option2": "",
         "answer": "2"},
        {"sentence": "a _ b _ c", "option1": "x", "option2": "y", "answer": "1"}]
    odd["lambada"] = [{"text": "word"}, {"text": "two  words"}, {"text": "a line\nand another"},
                      {"text": " \u00a0 nothing before"}, {"text": "wor\u00f0 \U0001f600"}]
    odd["wikitext"] = [{"page": " = T = \n a @-@ b 's ( c , d ) [ e ] { f } \" g \" ' h ' 1 @,@ 000"
                                " @.@ 5 : ; . ! ? s ' t /' 7/ = = = = x \u00b0 y N z \n \n \u00a0"},
                       {"page": "( never closed \" \n' it is ' 's ( ) [ \u3000 ]"}]
    odd["truthfulqa_mc1"] = [{"question": "One\u00a0", "mc1_targets": {
        "choices": ["\u00e9 a", "Yes [b]. "], "labels": [1, 0]}, "mc2_targets": {
            "choices": ["No 'a'", "\"b\"\\"], "labels": [0, 1]}}]
    odd["truthfulqa_mc2"] = odd["truthfulqa_mc1"]
    odd["hellaswag"] = [
        {"activity_label": " Ba\u00dftle", "ctx_a": "A [header] x [title] How\n[open ", "ctx_b":
         "\u01c6A B\u03a3 [substeps] c", "label": "3",
         "endings": ["a [b  c] d", "[title] e  f ", "g   h", "[i\n]"]},
        {"activity_label": "C", "ctx_a": "D", "ctx_b": "", "endings": ["e", "f", "g", "h"],
         "label": "0"}]
    for document in documents["hellaswag"][:200]:
        label, _, rest = document["query"].partition(": ")
        half = len(rest) // 2
        odd["hellaswag"].append({"activity_label": label, "ctx_a": rest[:half] + " [title] ",
                                 "ctx_b": rest[half:], "endings": document["endings"],
                                 "label": str(document["label"])})
    return {name: odd[name] + ([] if name == "hellaswag" else documents[name])
            for name in documents}


FILES = {"boolq": "boolq/validation", "piqa": "piqa/validation",
         "hellaswag": "hellaswag/validation", "winogrande": "winogrande/validation",
         "truthfulqa_mc1": "truthfulqa/validation", "truthfulqa_mc2": "truthfulqa/validation",
         "lambada": "lambada/test", "wikitext": "wikitext/test"}


def write_folder(folder, documents):
    for name, file in FILES.items():
        if name != "truthfulqa_mc1":  # mc2's file has both
            write_lines(folder / (file + ".jsonl"), documents[name])


YAMLS = {"boolq": "super_glue/boolq/default", "piqa": "piqa/piqa",
         "hellaswag": "hellaswag/hellaswag", "winogrande": "winogrande/default",
         "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1",
         "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2", "lambada": "lambada/lambada_openai",
         "wikitext": "wikitext/wikitext"}
CLEANED = """def documents(dataset):
    return dataset.map(lambda d: {"choices": d["endings"], "gold": int(d["label"])})
"""


def harness_task(name, folder, training):
    """A task file that is the harness's own with its documents from a file here."""
    split = "test" if name in ("lambada", "wikitext") else "validation"
    files = {split: str(folder / FILES[name]) + ".jsonl"}
    if training:
        files["train"] = str(folder / FILES[name].replace("validation", "train")) + ".jsonl"
    lines = [f"include: {pathlib.Path(lm_eval.__file__).parent / 'tasks' / YAMLS[name]}.yaml",
             f"task: {name}", "dataset_path: json", "dataset_name: null",
             f"dataset_kwargs: {json.dumps({'data_files': files})}",
             f"training_split: {'train' if training else 'null'}"]
    if split == "test":
        lines.append("validation_split: null")
    if name == "hellaswag" and "query" in lines_of(files[split])[0]:
        (folder / "cleaned.py").write_text(CLEANED)
        lines.append("process_docs: !function cleaned.documents")
    path = folder / f"{name}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


class Replay(TemplateLM):
    """Answers with the log-likelihoods that the program computed for the same tokens."""

    def __init__(self, tokenizer, length, samples):
        super().__init__()
        self.tokenizer, self.length = tokenizer, length
        self.known, self.asked = {}, set()
        for sample in samples:
            for request in sample["requests"]:
                context = request.get("context_ids", sample["requests"][0].get("context_ids"))
                key = (tuple(context), tuple(request["continuation_ids"]))
                self.known[key] = (request["log_likelihood"], request.get("greedy", False))
        self.texts = set()

    @property
    def eot_token_id(self):
        return self.tokenizer.eos_token_id

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        return self.tokenizer.encode(string, add_special_tokens=bool(add_special_tokens))

    def answer(self, context, continuation):
        key = (tuple(context), tuple(continuation))
        if key not in self.known:
            raise SystemExit("DIFFERENT: not among the requests of regla: "
                             f"{self.tokenizer.decode(context)!r} + "
                             f"{self.tokenizer.decode(continuation)!r}")
        self.asked.add(key)
        return self.known[key]

    def _loglikelihood_tokens(self, requests, **kwargs):
        self.texts.update(texts for texts, _, _ in requests)
        return [self.answer(context, continuation) for _, context, continuation in requests]

    def loglikelihood(self, requests, disable_tqdm=True):
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        sums = []
        for request in requests:
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]), prefix_token=self.prefix_token_id,
                max_seq_len=self.length, context_len=1)
            sums.append(sum(self.answer(*utils.make_disjoint_window(w))[0] for w in windows))
        return sums

    def generate_until(self, requests, disable_tqdm=False):
        raise NotImplementedError


def run(arguments):
    result = subprocess.run(arguments, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"FAILED: {' '.join(arguments)}\n{result.stderr}")
    return result.stdout


class Comparison:
    def __init__(self, options, workshop):
        self.options, self.workshop = options, workshop
        self.tokenizer_file = options.data / "tokenizer/20B_tokenizer.json"
        self.tokenizer = self.loaded_tokenizer(self.tokenizer_file)
        text = (options.data / "wikitext-2/wiki.valid.raw").read_text(encoding="utf-8")
        (workshop / "text").mkdir()
        (workshop / "text/t.train.txt").write_text(text[:400000], encoding="utf-8")
        self.table, self.differences = [], 0

    @staticmethod
    def loaded_tokenizer(path):
        return transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(path), eos_token=END, bos_token=END, unk_token=END)

    def small_tokenizer(self):
        path = self.workshop / "tokenizer.json"
        if not path.exists():
            run([self.options.regla, "tokenizer", "train", "--data", str(self.workshop / "text"),
                 "--out", str(path), "--vocab-size", str(VOCABULARY)])
        return path

    def trained_run(self, mixer, steps, tokenizer, **more):
        """A small model that was trained for some steps."""
        folder, out = self.workshop / "text", self.workshop / f"run-{steps}"
        config = {"steps": steps, "batch_size": 4, "tokenizer": str(tokenizer),
                  "layers": 2, "hidden": 32, "heads": 2, "mixer": mixer, "eval_every": 0,
                  "sequence_length": self.options.length, **more}
        (self.workshop / "config.json").write_text(json.dumps(config))
        run([self.options.regla, "train", "--config", str(self.workshop / "config.json"), "--data",
             str(folder), "--out", str(out)])
        return out

    def imported(self):
        """A GPT-NeoX checkpoint with random weights, as transformers writes it, and as a run."""
        folder, out = self.workshop / "checkpoint", self.workshop / "imported"
        tokenizer = self.loaded_tokenizer(self.small_tokenizer())
        torch.manual_seed(1)
        config = transformers.GPTNeoXConfig(
            vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, max_position_embeddings=self.options.length,
            initializer_range=0.1,
            bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id)
        transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        run([self.options.regla, "import", str(folder), "--out", str(out)])
        return folder, out

    def exported(self):
        """A model that was trained here, and as GPT-NeoX."""
        out = self.workshop / "exported"
        model = self.trained_run("softmax", 60, self.small_tokenizer(), learning_rate=0.01)
        run([self.options.regla, "export", str(model), "--out", str(out)])
        return out, model

    def ours(self, model, name, folder, shots):
        samples = self.workshop / "samples.jsonl"
        result = json.loads(run([
            self.options.regla, "eval", str(model), "--tasks", name, "--task-data", str(folder),
            "--shots", str(shots), "--limit", str(self.options.limit), "--samples", str(samples),
            "--json"]))["tasks"][name]
        return result, lines_of(samples)

    def theirs(self, lm, name, folder, shots, training=False):
        return lm_eval.simple_evaluate(
            model=lm, tasks=[harness_task(name, folder, training)], num_fewshot=shots,
            limit=self.options.limit, random_seed=0, numpy_random_seed=1234, torch_random_seed=1234,
            fewshot_random_seed=1234, log_samples=True, bootstrap_iters=100000, verbosity="ERROR")

    def report(self, title, ok, text):
        self.differences += not ok
        print(f"{'same     ' if ok else 'DIFFERENT'} {title}: {text}", flush=True)

    def metrics_agree(self, ours, theirs, tolerance):
        """The metrics and errors of both, and whether they are the same."""
        metrics = next(iter(theirs["results"].values()))
        texts, ok = [], str(next(iter(theirs["versions"].values()))) == ours["version"]
        for metric, score in ours["scores"].items():
            for mine, key in [(score["value"], metric), (score["error"], metric + "_stderr")]:
                other = metrics[key + ",none"]
                texts.append(f"{key} {mine} | {other}")
                if mine is None or other == "N/A":
                    ok = ok and mine is None and other == "N/A"
                else:
                    ok = ok and math.isclose(mine, other, rel_tol=tolerance, abs_tol=tolerance)
        return ok, ", ".join(texts)

    def requests(self, model, name, ours_folder, library_folder, shots, title, training=False):
        ours, samples = self.ours(model, name, ours_folder, shots)
        lm = Replay(self.tokenizer, self.options.length, samples)
        theirs = self.theirs(lm, name, library_folder, shots, training)
        ok, text = self.metrics_agree(ours, theirs, 1e-9)
        texts = {(request.get("context", sample["requests"][0].get("context")),
                  request.get("continuation"))
                 for sample in samples for request in sample["requests"]}
        same_texts = name == "wikitext" or texts == lm.texts
        ok = ok and same_texts and lm.asked == set(lm.known)
        self.report(f"{title} {name} {shots}-shot", ok,
                    f"{len(samples)} documents, {len(lm.known)} requests, {text}")

    def models(self, kind, folder, model, name, ours_folder, library_folder, shots):
        """Log-likelihoods of the program's model beside those of the same in transformers."""
        ours, samples = self.ours(model, name, ours_folder, shots)
        lm = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=4)
        assert lm.max_length == self.options.length
        theirs = self.theirs(lm, name, library_folder, shots)
        others = sorted(next(iter(theirs["samples"].values())), key=lambda s: s["doc_id"])
        largest, different, close = 0.0, 0, 0
        for sample, other in zip(samples, others, strict=True):
            mine = [request["log_likelihood"] for request in sample["requests"]]
            if name == "wikitext":  # a text's windows together
                mine, his = [sum(mine)], [other["resps"][0][0]]
            else:
                his = [response[0][0] for response in other["resps"]]
            # 1e-3 is for a request; in a text of many windows F32 alone makes 1e-6 of the whole.
            scale = 1 if name != "wikitext" else max(1.0, abs(his[0]) * 1e-3)
            largest = max([largest] + [abs(a - b) / scale for a, b in zip(mine, his, strict=True)])
            best = sorted(his, reverse=True)
            is_close = len(best) > 1 and best[0] - best[1] <= TOLERANCE
            close += is_close
            different += not is_close and mine.index(max(mine)) != his.index(max(his))
        metrics = next(iter(theirs["results"].values()))
        same, text = self.metrics_agree(ours, theirs, 1e-3)
        ok = largest <= TOLERANCE and different == 0 and (same or close > 0)
        self.report(f"{kind} {name} {shots}-shot", ok,
                    f"{len(samples)} documents, {ours['requests']} requests, {ours['truncated']} "
                    f"truncated, largest difference {largest:.1e}, {different} other choices, "
                    f"{close} too close to call, {text}")
        for metric, score in ours["scores"].items():
            self.table.append(
                f"| {kind} | {name} | {ours['shots']} | {len(samples)} | {metric} | "
                f"{score['value']:.6g} | {metrics[metric + ',none']:.6g} | {largest:.1e} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("regla")
    parser.add_argument("data", type=pathlib.Path, nargs="?", default=os.environ.get("REGLA_DATA"))
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5])
    parser.add_argument("--length", type=int, default=192, help="inputs that the models take")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--parts", nargs="+", default=["requests"], choices=["requests", "models"])
    parser.add_argument("--table", type=pathlib.Path, help="write what models gave as Markdown")
    options = parser.parse_args()
    if options.data is None:
        print("SKIPPED: no folder of data is given and REGLA_DATA is not set")
        sys.exit(77)
    installed = lm_eval.__version__ if hasattr(lm_eval, "__version__") else VERSION
    if installed != VERSION:
        print(f"SKIPPED: lm_eval is of version {installed}, and {VERSION} is followed")
        sys.exit(77)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        workshop = pathlib.Path(folder)
        os.environ["HF_HOME"] = str(workshop / "hf")
        comparison = Comparison(options, workshop)
        published, library = library_form(options.data), workshop / "library"
        write_folder(library, published)
        write_folder(workshop / "awkward", awkward(published))
        model, models = None, []
        if "requests" in options.parts:
            model = comparison.trained_run(["regla", "softmax"], 2, comparison.tokenizer_file)
        if "models" in options.parts:
            models = [("imported", *comparison.imported()), ("exported", *comparison.exported())]
        for name in options.tasks:
            upstream = options.data if name == "wikitext" else options.data / "eval"
            for shots in options.shots:
                if model:
                    comparison.requests(model, name, upstream, library, shots, "published")
                    comparison.requests(model, name, workshop / "awkward", workshop / "awkward",
                                        shots, "library")
                for kind, folder, run_folder in models:
                    comparison.models(kind, folder, run_folder, name, upstream, library, shots)
        if options.table:
            head = ["| model | task | shots | documents | | here | harness | largest difference |",
                    "| --- | --- | --- | --- | --- | --- | --- | --- |"]
            options.table.write_text("\n".join(head + comparison.table) + "\n")
    print(f"{comparison.differences} differences")
    sys.exit(1 if comparison.differences else 0)


if __name__ == "__main__":
    main()
