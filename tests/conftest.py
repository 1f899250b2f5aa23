"""Tiny random models of four architectures, and the real embedded one; nothing here reaches the network."""

import importlib.util
import os
import shutil

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# As the command sets them, before transformers is imported, which reads them once.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import jaxtyping
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from interp_toolkit import Adapter, Site, SoftPrompt, load_model
from interp_toolkit.contract import Contract
from interp_toolkit.models import model_facts

# The lowest releases are tried without the extras.
collect_ignore = [] if importlib.util.find_spec("fastapi") else ["test_serve.py", "test_explorer.py", "test_tools.py"]

ARCHITECTURES = ("llama", "qwen2", "gemma2", "gpt2")
try:  # TransformerLens 4 has the bridge only.
    from transformer_lens import HookedTransformer  # noqa: F401

    BACKENDS = ("bridge", "hooked_transformer")
except ImportError:
    BACKENDS = ("bridge",)

# `make test-fast` leaves out the real model, the browser, all classes and architectures but these, and what is marked.
_SLOW_FIXTURES, _FAST_PARAMETERS = {"smollm", "smollm_hf", "browser"}, {"bridge", "llama", "gemma2"}

_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIALS = ["<|pad|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>", "<|reserved_0|>"]
_TEXT = [
    'What is the meaning of "this"? The meaning of "that" is "something else".',
    "Tell me about baseball. Tell me about the history of Poland, and about rivers.",
    "user assistant system\n a quick brown fox jumps over the lazy dog",
]


def pytest_collection_modifyitems(items):
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        asked = {parameters[name] for name in ("backend", "architecture") if name in parameters}
        if _SLOW_FIXTURES & set(item.fixturenames) or asked - _FAST_PARAMETERS:
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A byte-level tokenizer of some 320 tokens with a chat template and a reserved token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=_SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        additional_special_tokens=_SPECIALS[3:],
        chat_template=_TEMPLATE,
    )


class _Bytes:
    """A token for each byte, and a replacement character for each that is of no whole character yet."""

    def decode(self, ids, clean_up_tokenization_spaces):
        text = bytes(ids).decode(errors="surrogateescape")
        return "".join("\N{REPLACEMENT CHARACTER}" if "\udc80" <= sign <= "\udcff" else sign for sign in text)


@pytest.fixture
def byte_tokenizer():
    """Decodes bytes as tokenizers do that fall back on them."""
    return _Bytes()


def _config(architecture, vocabulary):
    common = dict(
        vocab_size=vocabulary,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.15,
    )
    if architecture == "gpt2":
        return transformers.GPT2Config(
            **common, n_embd=32, n_layer=4, n_head=4, n_positions=256, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0
        )
    sizes = dict(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    if architecture == "gemma2":
        return transformers.Gemma2Config(**common, **sizes, head_dim=8, query_pre_attn_scalar=8, sliding_window=8)
    kind = transformers.LlamaConfig if architecture == "llama" else transformers.Qwen2Config
    return kind(**common, **sizes, tie_word_embeddings=architecture == "llama")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, tiny_tokenizer):
    """Folders with a Hugging Face checkpoint, by architecture."""
    folders = {}
    for seed, architecture in enumerate(ARCHITECTURES):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(architecture, len(tiny_tokenizer)))
        folders[architecture] = tmp_path_factory.mktemp(architecture)
        model.save_pretrained(folders[architecture])
        tiny_tokenizer.save_pretrained(folders[architecture])
    return folders


@pytest.fixture(scope="session")
def tiny(checkpoints):
    """tiny(architecture, backend): the hooked model, float32, loaded once."""
    loaded = {}

    def get(architecture="llama", backend="bridge"):
        if (architecture, backend) not in loaded:
            folder = checkpoints[architecture]
            loaded[architecture, backend] = load_model(folder, backend=backend, dtype="float32")
        return loaded[architecture, backend]

    return get


@pytest.fixture(scope="session")
def tiny_hf(checkpoints):
    """tiny_hf(architecture): the same weights in Hugging Face's own class, the ground truth."""
    return lambda architecture: hugging_face(checkpoints[architecture])


@pytest.fixture(scope="session")
def smollm():
    """The embedded model as the bridge, float32."""
    return load_model("smollm2-135m", dtype="float32")


@pytest.fixture(scope="session")
def smollm_hf():
    """The embedded model in Hugging Face's own class."""
    from interp_toolkit.models.embedded import embedded_checkpoint

    return hugging_face(embedded_checkpoint())


def hugging_face(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval().requires_grad_(False)


def make_sae(architecture="topk", width=32, features=48, training=False, seed=0, **metadata):
    """A random SAE whose rows have lengths other than one, and biases other than zero."""
    pytest.importorskip("sae_lens")
    from sae_lens.registry import get_sae_class, get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata

    kind, config = (get_sae_training_class if training else get_sae_class)(architecture)
    result = dict(hook_name="blocks.2.hook_resid_post", model_name="llama") | metadata
    settings = dict(d_in=width, d_sae=features, metadata=SAEMetadata(**result))
    if "topk" in architecture:
        settings["k"] = 6
    if architecture == "matryoshka_batchtopk":
        settings["matryoshka_widths"] = [12, features]
    if architecture == "matching_pursuit" and training:
        settings["decoder_init_norm"] = 1.0
    if architecture == "temporal":
        settings |= dict(n_heads=2, n_attn_layers=1, bottleneck_factor=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sae = kind(config(**settings))
        with torch.no_grad():
            for name, value in sae.named_parameters():
                value.copy_(torch.randn_like(value) * (0.3 if value.ndim > 1 else 0.1))
                if name == "threshold":
                    value.abs_()
    return sae


@pytest.fixture(scope="session")
def tiny_prompt(tiny_tokenizer):
    return SoftPrompt.for_chat(tiny_tokenizer)


@pytest.fixture
def adapter(tiny, tiny_prompt):
    """For the tiny Llama after block 2, with a bias and a mean of zero; some files have another."""
    made = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    made.bias.copy_(torch.randn(32, generator=torch.Generator().manual_seed(1)))
    made.contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, torch.zeros(32), True)
    return made


@pytest.fixture
def random_vectors():
    """random_vectors(n, d): reproducible."""
    return lambda n, d=32, seed=0: torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def same_threads(request, monkeypatch, tmp_path_factory):
    """As many threads in every call, whatever else the machine does: their number decides the last digits."""
    if request.module.__name__ != "test_processors":
        monkeypatch.setattr("interp_toolkit.models.processors._LOAD", tmp_path_factory.getbasetemp() / "no-loadavg")


@pytest.fixture
def unchecked():
    """Without the type checks that the tests put on the library, so that a user's mistake reaches the user's error."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    return request.param


def crashing(function, call):
    """The function, which runs out of memory at its call of this number, counted from 1."""
    calls = []

    def run(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise MemoryError
        return function(*arguments)

    return run


class Letters:
    """Stands in for the embedder, which tests do not have: counts of letters."""

    def __call__(self, texts):
        return torch.tensor([[text.count(chr(i)) for i in range(32, 128)] for text in texts]).float()

    cached = __call__


def _missing(reason):
    (pytest.fail if os.environ.get("INTERP_TOOLKIT_BROWSER") == "required" else pytest.skip)(reason)


@pytest.fixture(scope="module")
def browser():
    """A real Chromium, where there is one."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("no playwright is installed: pip install -e '.[dev]'")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        _missing("no browser is installed: apt-get install chromium")
    # Chromium refuses to run as root in its sandbox.
    options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=[*options, "--disable-gpu"])
        yield launched
        launched.close()
