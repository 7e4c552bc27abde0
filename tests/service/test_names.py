"""Names of Headrace's own topics and groups: users' data live in them, so that they never change."""

from headrace.service.names import Names
from headrace.topics.spec import is_topic_name


def test_all_names_derive_from_the_apps() -> None:
    names = Names("shop.v2")
    assert (names.runs, names.audit, names.refused, names.router) == (
        "shop.v2.runs",
        "shop.v2.audit",
        "shop.v2.dlq",
        "shop.v2.router",
    )


def test_the_longest_app_name_makes_legal_topics() -> None:
    names = Names("a" * 150)
    assert all(is_topic_name(name) for name in (names.runs, names.audit, names.refused))
