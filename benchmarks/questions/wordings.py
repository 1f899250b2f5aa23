"""How the benchmark words its questions. The last wording of each is kept from training, questions with * wholly."""

from __future__ import annotations

KIND_QUESTIONS = {
    "person": ("Is this about a person?", "Is this the name of somebody?", "Does this speak of a human being?"),
    "place": ("Is this about a place?", "Is this the name of a location?", "Could one travel to this?"),
    "time": ("Is this about a time or an event?", "Is this something that happens?", "Does this have a date?"),
    "animal": ("Is this about an animal?", "Is this a kind of animal?", "Does this speak of a creature?"),
    "plant": ("Is this about a plant?", "Is this something that grows in soil?", "Does this have leaves or roots?"),
    "substance": (
        "Is this about a substance?",
        "Is this a material, a chemical or a food?",
        "Could one fill a bottle or a bag with this?",
    ),
    "object": (
        "Is this about a thing that people make?",
        "Is this an object?",
        "Is this a tool or a building?",
    ),
    "body part*": ("Is this about a part of the body?", "Does a body have this?"),
}

GENRES = {
    "books": (
        "Is this from a book?",
        "Is this a part of a novel?",
        "Was this a printed book?",
    ),
    "code": ("Is this program code?", "Is this about programming?", "Did a programmer write this?"),
    "math": (
        "Is this a mathematics problem?",
        "Is this an exercise with numbers?",
        "Does this ask for a number?",
    ),
    "conversation": ("Is this a conversation?", "Are people talking to each other here?", "Is this a dialogue?"),
    "encyclopedia": ("Is this from an encyclopedia?", "Is this an article of Wikipedia?", "Is this a reference work?"),
    "news": ("Is this from the news?", "Is this a newspaper article?", "Did a reporter write this?"),
    "stories": ("Is this a story for children?", "Is this a fairy tale?", "Would one read this to a child?"),
    "howto": ("Is this a guide to a command?", "Does this say how to use a program?", "Are these instructions?"),
    "speech*": ("Is this from a speech?", "Did somebody say this to an audience?"),
}

LANGUAGES = {
    "English": ("Is this in English?", "Is the language English?", "Could someone in London have written this?"),
    "French": ("Is this in French?", "Is the language French?", "Could someone in Paris have written this?"),
    "German": ("Is this in German?", "Is the language German?", "Could someone in Berlin have written this?"),
    "Spanish": ("Is this in Spanish?", "Is the language Spanish?", "Could someone in Madrid have written this?"),
    "Polish": ("Is this in Polish?", "Is the language Polish?", "Could someone in Warsaw have written this?"),
    "Turkish": ("Is this in Turkish?", "Is the language Turkish?", "Could someone in Ankara have written this?"),
    "Dutch*": ("Is this in Dutch?", "Is the language Dutch?"),
    "Italian*": ("Is this in Italian?", "Is the language Italian?"),
}

WHICH = {
    "kind": ("What kind of thing is this?", "Which of these is this about?", "How would one classify this?"),
    "genre": ("What kind of text is this?", "Where is this text from?", "Which genre is this?"),
    "language": ("In which language is this?", "Which language is this?", "What tongue is this written in?"),
}

RELATED = {
    "factual/landmark_in_country": (
        "In which country is this?",
        "Which country does this belong to?",
        "What is the country of this place?",
    ),
    "factual/landmark_on_continent": (
        "On which continent is this?",
        "Which continent is this a part of?",
        "What continent would one travel to for this?",
    ),
    "factual/person_native_language": (
        "Which language does this person speak?",
        "What is the mother tongue of this person?",
        "In what language did this person grow up?",
    ),
    "factual/person_occupation": (
        "What is the profession of this person?",
        "What does this person do for a living?",
        "Which job does this person have?",
    ),
    "factual/person_plays_instrument": (
        "Which instrument does this person play?",
        "What does this musician play?",
        "On which instrument does this person perform?",
    ),
    "factual/product_by_company": (
        "Which company makes this?",
        "Who developed this product?",
        "What firm sells this?",
    ),
    "factual/company_hq": (
        "In which city is the headquarters of this?",
        "Where is this organisation based?",
        "What city is the home of this company?",
    ),
    "factual/star_constellation": (
        "In which constellation is this?",
        "Which constellation does this star belong to?",
        "What part of the sky is this star in?",
    ),
    "commonsense/word_sentiment": (
        "Is this positive, negative or neutral?",
        "What is the sentiment of this?",
        "Which feeling does this word give?",
    ),
    "factual/person_plays_pro_sport*": (
        "Which sport does this person play?",
        "What is the sport of this athlete?",
    ),
    "factual/country_language*": ("Which language do people speak here?", "What is the language of this country?"),
    "factual/country_capital_city*": ("What is the capital of this?", "Which city is the seat of its government?"),
    "factual/food_from_country*": ("Which country is this food from?", "Where was this dish invented?"),
    "commonsense/substance_phase*": ("Is this solid, liquid or gas?", "In which state is this at room temperature?"),
}

# Choices, from which to which number of words each goes, and wordings.
POSITIONS = {
    "beginning": (
        ("yes", "no"),
        ((3, 10), (30, 60)),
        ("Is this near the beginning of the text?", "Have few words come before?", "Did the text start just now?"),
    ),
    "length": (
        ("fewer than ten", "about twenty", "more than forty"),
        ((3, 9), (17, 23), (41, 60)),
        ("How many words have come so far?", "How long is the text up to here?", "What is the number of words?"),
    ),
}
