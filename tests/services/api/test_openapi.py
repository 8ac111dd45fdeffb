"""The server does what its OpenAPI document says: Schemathesis, with every check that it has."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from api_kit import make_api, operations
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

EXAMPLES = 5  # of each kind, for each operation
# A body can be as its schema says and still hold a job that cannot be trained.
CONFIG = {
    "checks": {
        "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "403", "404", "409", "422"]},
    }
}


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Any:
    api = make_api(tmp_path_factory.mktemp("api"))
    api.submit()
    job, token = api.start()
    end = {"outcome": "failed", "error": {"class": "user", "code": "bad", "message": "no"}}
    assert api.report(job, token, 1, end=end).status_code == 200
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", api.app, config=schemathesis.Config.from_dict(CONFIG)
    )
    api.submit()
    running, runner_token = api.start()
    yield api, schema, {"user": (job.id, api.tokens["all"]), "runner": (running.id, runner_token)}
    api.runner.close()
    api.store.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), operations())
def test_operation(tested: Any, method: str, path: str, mode: GenerationMode) -> None:
    _, schema, known = tested
    job_id, token = known["runner" if path.startswith("/v1/runner/jobs") else "user"]
    operation = schema[path][method.lower()]

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=True,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        if mode is GenerationMode.POSITIVE and "job_id" in case.path_parameters and method != "DELETE":
            case.path_parameters["job_id"] = job_id  # one that is there: made up ones are all unknown
        # A case without a token is one of those that must be refused.
        given = mode is GenerationMode.POSITIVE or "Authorization" in case.headers
        case.call_and_validate(headers={"Authorization": f"Bearer {token}"} if given else {})

    try:
        check()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # it takes nothing, so nothing can be wrong
