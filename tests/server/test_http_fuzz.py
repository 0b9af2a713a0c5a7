"""Random requests generated from our own OpenAPI description: no answer is a 5xx."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from live_server import Server, fill
from schemathesis.core.result import Ok

KNOWN = {
    "image": ["normal_1", "lesion_1"],
    "label": ["lesion_1"],
    "id": ["nobody"],
    "tag": ["final"],
    "model": ["mediclip", "mvfa"],
    "method": ["mediclip"],
    "strategy": ["random", "most_diverse"],
}


def fuzz(folder: Path, examples: int) -> Counter[tuple[str, int]]:
    """Count answers by (operation, status), of `examples` requests to each operation of a new server.

    Half of the requests use names that exist, so that they pass the first check. Rate limit and scoring are off.
    """
    server = Server(fill(folder / "studies"), MEDCLIPAD_SCORING="off", MEDCLIPAD_RATE="0")
    answers: Counter[tuple[str, int]] = Counter()
    failures: list[str] = []
    try:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
        assert len(operations) > 20
        for operation in operations:

            @seed(1)
            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]  its metaclass iterates
            )
            @given(case=operation.as_strategy(), known=st.booleans(), choice=st.integers(0, 1))
            def send(case: schemathesis.Case, known: bool, choice: int) -> None:
                for where in (case.query, case.path_parameters):
                    for name in (name for name in where or {} if known and name in KNOWN):
                        where[name] = KNOWN[name][choice % len(KNOWN[name])]
                answer = case.call(timeout=60)
                answers[operation.label, answer.status_code] += 1  # noqa: B023
                if answer.status_code >= 500 and answer.status_code not in (503, 507):
                    failures.append(f"{answer.status_code}: {case.as_curl_command()[:500]}")

            send()
        assert server.client.info()["name"] == "MedCLIPAD", "it still lives"
        assert {"normal_1", "lesion_1"} <= set(server.client.images())
    finally:
        server.stop()
    assert not failures, "\n".join(failures[:5])
    assert "Traceback" not in server.log, server.log
    return answers


def test_a_few_requests_to_every_route(tmp_path: Path) -> None:
    answers = fuzz(tmp_path, examples=5)
    assert answers.total() > 100 and {status // 100 for _, status in answers} == {2, 4}


@pytest.mark.long
def test_two_thousand_requests(tmp_path: Path) -> None:
    answers = fuzz(tmp_path, examples=100)
    print(f"{answers.total()} requests: {sorted(Counter(status for _, status in answers.elements()).items())}")
    assert answers.total() >= 2000
