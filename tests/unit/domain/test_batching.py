"""How the size of a batch falls and grows."""

from app.domain.batching import MAX_MESSAGES, PROBE, STEADY, BatchSize


def test_a_refused_batch_is_halved_down_to_one_message() -> None:
    size, seen = BatchSize(), []
    for _ in range(12):
        size.refused(size.count)
        seen.append(size.count)
    assert seen == [500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1, 1]


def test_after_a_refusal_it_grows_slowly_and_only_by_batches_of_full_size() -> None:
    size = BatchSize()
    size.refused(160)
    assert size.count == 80
    for _ in range(10 * STEADY):
        size.stored(79)
    assert size.count == 80
    for _ in range(STEADY):
        size.stored(80)
    assert size.count == 90
    for _ in range(200 * STEADY):
        size.stored(size.count)
    assert size.count == MAX_MESSAGES


def test_after_a_doubt_it_doubles_up_to_what_is_known_to_pass() -> None:
    size = BatchSize()
    size.unanswered(1000)
    size.unanswered(500)
    assert size.count == 250
    size.stored(250)
    size.stored(500)
    assert size.count == 1000
    size.refused(1000)
    size.unanswered(200)
    size.stored(100)
    size.stored(200)
    size.stored(400)
    assert size.count == 500


def test_what_the_server_says_it_takes_is_kept_and_tried_again_rarely() -> None:
    size = BatchSize()
    size.refused(1000, 25)
    assert size.count == 25
    for _ in range(PROBE - 1):
        size.stored(25)
        assert size.count == 25
    size.stored(25)
    assert size.count == MAX_MESSAGES
    size.refused(1000, 25)
    size.refused(25)
    assert size.count == 12
    for _ in range(10 * STEADY):
        size.stored(size.count)
    assert size.count == 25
