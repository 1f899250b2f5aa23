"""What `make demo` runs: what the model says its own state means at the end of eight questions, and at each token.

None of the questions is worded like the prompts that the adapter was trained on ("Tell me about {title}."). The same
table is written as a page. The tokens are those of one sentence, which another adapter reads.
"""

import shutil
from pathlib import Path

from interp_toolkit import load_model, self_explain
from interp_toolkit.views import explanations_report

PROMPTS = [
    "How do glaciers carve valleys?",
    "How did the dinosaurs die out?",
    "What do pandas eat?",
    "Why do stock prices fall?",
    "How is wine made from grapes?",
    "Who wrote Hamlet?",
    "How do I get a sourdough loaf to rise?",
    "What did Einstein discover?",
]
TEXT = "The Eiffel Tower is in Paris."
PAGE = Path("runs") / "demo.html"

if __name__ == "__main__":
    print("The residual stream at the end of eight questions, and what the model says it means:\n", flush=True)
    # In float32, whatever the processor is fast at, so that the table is the README's.
    model, width = load_model(dtype="float32"), shutil.get_terminal_size().columns
    explanations = self_explain(PROMPTS, model=model, include_null=True)
    print(explanations.to_text(width))
    print(f"\nThe same at each token of a sentence, {TEXT!r}:\n", flush=True)
    print(self_explain(TEXT, model=model, positions="content").to_text(width))
    page = explanations_report(explanations).save(PAGE)
    print(f"\nThe same as a page for the browser: {page.resolve().as_uri()}")
