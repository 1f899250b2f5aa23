"""What `make demo` runs: eight questions, and what the model says its own state means at the end of each.

None of them holds the words of the topic that its answer is about, and none is worded like the training prompts.
"""

import sys

from interp_toolkit.cli import main

PROMPTS = [
    "How do I get a sourdough loaf to rise?",
    "Why does the pitcher throw a curveball?",
    "Which instrument did Miles Davis play?",
    "Why do boats not sink?",
    "What should I see in Warsaw?",
    "How did the dinosaurs die out?",
    "My knee hurts when I run. What could it be?",
    "How do bees make honey?",
]

if __name__ == "__main__":
    print(
        "Reading the residual stream at the end of eight questions, and asking the model what it means.\n", flush=True
    )
    sys.exit(main(["explain", *PROMPTS, "--null"]))
