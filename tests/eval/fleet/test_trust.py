from eval.fleet.trust import DEATHS, Trust


def test_a_machine_is_given_up_once_several_problems_in_a_row_died_on_it() -> None:
    trust = Trust()
    assert [trust.died("bad", f"p{number}") for number in range(DEATHS)] == [False, False, True]
    assert not trust.died("bad", "one that was on its way")
    assert trust.given_up == {"bad"}


def test_a_problem_that_comes_back_and_deaths_elsewhere_speak_for_a_machine() -> None:
    trust = Trust()
    for number in range(DEATHS - 1):
        trust.died("good", f"p{number}")
        trust.died("other", f"p{number}")
    trust.answered("good")
    assert not trust.died("good", "p7")
    assert trust.given_up == set()


def test_one_problem_that_kills_whatever_runs_it_costs_no_machine() -> None:
    trust = Trust()
    assert not any(trust.died("only", "killer") for _ in range(3 * DEATHS))
