"""What `make demo` runs: eight questions, and what the model says its own state means at the end of each.

None of them is worded like the prompts that the adapter was trained on ("Tell me about {title}.").
The same table is written as a page.
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
PAGE = Path("runs") / "demo.html"

if __name__ == "__main__":
    print("The residual stream at the end of eight questions, and what the model says it means:\n", flush=True)
    # In float32, whatever the processor is fast at, so that the table is the README's.
    explanations = self_explain(PROMPTS, model=load_model(dtype="float32"), include_null=True)
    print(explanations.to_text(shutil.get_terminal_size().columns))
    page = explanations_report(explanations).save(PAGE)
    print(f"\nThe same as a page for the browser: {page.resolve().as_uri()}")
