"""What a chat model is asked, and which of its answers are taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.registry import MODELS
from components.prompt import Extender, Judged, Sampling, judge, messages

LONG = "A red ball rolls over a grey floor. The camera follows it. It stops at a wall"


def taken(answer: str, prompt: str = "a ball", max_chars: int = 200) -> Judged:
    return judge(prompt, answer, max_chars=max_chars)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ('A red ball rolls."}', "A red ball rolls."),
        ('A red ball \\"rolls\\".", "more": "x"}', 'A red ball "rolls".'),
        ('  A red\\n\\nball\n rolls. "', "A red ball rolls."),
        ('caf\\u00e9 ball"', "café ball"),
        (LONG, "A red ball rolls over a grey floor. The camera follows it."),  # cut off by the number of tokens
        ("A red ball rolls ov", "A red ball rolls"),
        ("A red ball rolls\\", "A red ball"),
    ],
)
def test_a_usable_answer_is_taken(answer: str, text: str) -> None:
    assert taken(answer) == Judged(text)


def test_an_answer_is_cut_at_a_sentence_to_what_the_model_takes() -> None:
    assert taken(f'{LONG}."', max_chars=40) == Judged("A red ball rolls over a grey floor.")
    assert taken(f'{LONG}."', max_chars=12) == Judged("A red ball")


@pytest.mark.parametrize(
    ("answer", "prompt", "why"),
    [
        ("", "a ball", "is empty"),
        ('"}', "a ball", "is empty"),
        (' ... "', "a ball", "is empty"),
        ('A \\x ball"', "a ball", "is not JSON"),
        ('A \ufffd ball"', "a ball", "is not a text"),
        ('A \\u0007 ball"', "a ball", "is not a text"),
        ('a  Ball"', "A ball", "is the prompt itself"),
        ('A ball rolls."', "@ball rolls to @wall", "does not mention @ball, @wall"),
        ('@wall is hit by @ball."', "@ball rolls to @wall", "does not keep the order of @ball, @wall"),
        ('The face of the man."', "[ZOOM_IN_CUT] his face", r"does not mention \\[ZOOM_IN_CUT\\]"),
        ('Image 2 and image 1 dance."', "image 1 and image 2 dance", "does not mention image 2"),
    ],
)
def test_an_unusable_answer_leaves_the_callers_prompt_and_says_why(answer: str, prompt: str, why: str) -> None:
    judged = taken(answer, prompt)
    assert judged.prompt == prompt
    assert judged.kept is not None and why.replace("\\", "") in judged.kept


def test_references_are_kept_in_their_order() -> None:
    answer = '@ball, which is small, rolls; then @ball meets @wall and @ball stops."'
    assert taken(answer, "@ball rolls to @wall").kept is None


@given(st.text(), st.text(min_size=1))
def test_whatever_is_answered_there_is_a_prompt(answer: str, prompt: str) -> None:
    judged = taken(answer, prompt, max_chars=50)
    assert judged.prompt == prompt if judged.kept else 0 < len(judged.prompt) <= 50


def test_every_task_is_asked_for_what_it_needs() -> None:
    asked = {model.task: messages(model.task, "a ball", 3)[0]["content"] for model in MODELS.values()}
    for task in ("text_to_video", "image_to_video"):  # V1 and V2 are asked alike
        assert asked.pop(f"hunyuan_{task}") == asked[task]
    assert len(set(asked.values())) == len(asked)
    assert "there are 3" in asked["reference_to_video"]
    for cut in ("Cut-In", "Cut-Out", "Shot/Reverse Shot", "Multi-Angle", "Cut Away"):
        assert cut in asked["shot_switching_extension"]
    assert messages("some_day", "a ball", 0) == messages("text_to_video", "a ball", 0)


class Speaker:
    """A writer that says what it is told to."""

    ailment = None

    def __init__(self, tokenizer, text: str) -> None:
        self.ids = tokenizer(text, add_special_tokens=False).input_ids
        self.written = 0

    def write(self, ids, sampling, seed, done):
        for end in range(1, min(len(self.ids), sampling.max_tokens) + 1):
            self.written = end
            if done(self.ids[:end]):
                break
        return self.ids[: self.written]

    def close(self) -> None:
        pass


def test_the_model_is_stopped_at_the_end_of_the_string(extender_root) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(extender_root)
    speaker = Speaker(tokenizer, 'a \\"red\\" ball"} and much more that nobody reads')
    extender = Extender(tokenizer, speaker, Sampling(), 8192)
    answer = extender.answer(messages("text_to_video", "ball", 0), 0)
    assert taken(answer) == Judged('a "red" ball')
    assert speaker.written < len(speaker.ids) - 10


def test_a_question_that_is_too_long_has_no_answer(extender_root) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(extender_root)
    extender = Extender(tokenizer, Speaker(tokenizer, "x"), Sampling(max_tokens=100), 200)
    assert taken(extender.answer(messages("text_to_video", "ball " * 100, 0), 0)).kept is not None
