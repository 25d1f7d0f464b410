"""Which settings there are: within the CPUs, cores and clusters that may be used."""

from edgekit.core.facts import Cluster, FactSheet
from edgekit.core.recipes import ONNXRUNTIME, OPENVINO
from edgekit.core.space import ARENA, BATCHES, PINNING, SPIN, batches, core_sets, cpu_list, plain_settings, with_options
from edgekit.core.tradeoffs import Setting

BIG_LITTLE = (
    Cluster((0, 1, 2, 3), "0xd05", 1_800_000, 400),
    Cluster((4, 5), "0xd0b", 2_400_000, 1024),
)


def sheet(**fields: object) -> FactSheet:
    return FactSheet("aarch64", (), **{"usable_threads": 6, "clusters": BIG_LITTLE, **fields})  # type: ignore[arg-type]


def test_alike_cores_are_one_set() -> None:
    clusters = (Cluster((0, 1), "a", 1), Cluster((2, 3), "a", 1))
    assert [c.cpus for c in core_sets(sheet(clusters=clusters, usable_threads=4))] == [""]


def test_clusters_that_differ_are_sets_of_their_own() -> None:
    assert [(c.cpus, c.count) for c in core_sets(sheet())] == [("", 6), ("0-3", 4), ("4-5", 2)]


def test_a_cpuset_leaves_only_what_it_grants() -> None:
    found = core_sets(sheet(cpuset=(1, 2, 4), usable_threads=3))
    assert [(c.cpus, c.count) for c in found] == [("", 3), ("1-2", 2), ("4", 1)]


def test_an_affinity_that_does_not_say_which_cpus_names_none() -> None:
    assert [c.cpus for c in core_sets(sheet(cpus_online=6, cpus_affinity=3, usable_threads=3))] == [""]


def test_a_quota_bounds_threads_of_every_set() -> None:
    settings = plain_settings(ONNXRUNTIME, core_sets(sheet(usable_threads=1)), (), in_order=False)
    assert {s.threads for s in settings if not s.cores} == {1}


def test_streams_and_threads_stay_within_the_cores() -> None:
    sets = core_sets(sheet(clusters=(), usable_threads=4))
    ort = plain_settings(ONNXRUNTIME, sets, (), in_order=False)
    openvino = plain_settings(OPENVINO, sets, (), in_order=False)
    assert all(s.streams + s.threads - 1 <= 4 for s in ort)
    assert all(s.streams <= s.threads <= 4 for s in openvino)
    assert Setting(1, 4) in ort and Setting(4, 4) in openvino and Setting(4) in ort


def test_every_core_is_an_end_of_the_space() -> None:
    settings = plain_settings(ONNXRUNTIME, core_sets(sheet(clusters=(), usable_threads=6)), (), in_order=False)
    assert {s.threads for s in settings} == {1, 2, 4, 6}


def test_state_takes_one_stream_and_no_batch() -> None:
    settings = plain_settings(OPENVINO, core_sets(sheet()), BATCHES, in_order=True)
    assert {(s.streams, s.batch) for s in settings} == {(1, 1)}


def test_batches_end_with_the_samples_and_with_long_requests() -> None:
    assert batches(0.2, 1000) == BATCHES
    assert batches(0.2, 5) == (2, 4)
    assert batches(60.0, 1000) == (2,)
    assert batches(300.0, 1000) == ()


def test_options_only_where_they_can_matter() -> None:
    one, two = Setting(1), Setting(2)
    assert [dict(s.options) for s in with_options(ONNXRUNTIME, one)] == [{ARENA: "0"}]
    assert [dict(s.options) for s in with_options(ONNXRUNTIME, two)] == [{ARENA: "0"}, {SPIN: "0"}]
    assert with_options(OPENVINO, one) == ()
    assert [dict(s.options) for s in with_options(OPENVINO, two)] == [{PINNING: "YES"}]


def test_cpus_are_listed_as_the_kernel_lists_them() -> None:
    assert cpu_list([5, 0, 1, 2]) == "0-2,5"
    assert cpu_list([]) == ""
