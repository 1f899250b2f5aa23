"""What `make demo` runs: eight questions, and what the model says its own state means at the end of each.

None of them is worded like the prompts that the adapter was trained on ("Tell me about {title}.").
"""

import sys

from interp_toolkit.cli import main

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

if __name__ == "__main__":
    print("The residual stream at the end of eight questions, and what the model says it means:\n", flush=True)
    sys.exit(main(["explain", *PROMPTS, "--null"]))
