"""How parameters start: the property that defines each rule of the table."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from ostinato import CellError
from ostinato.ir import Program
from ostinato.nn.initialize import initialize, initialize_all, rules_for
from ostinato.nn.rules import KINDS

H = 32
# One rule of each form, by the shape it fills; every row of the table is here.
EXAMPLES: dict[str, tuple[int, ...]] = {
    "lecun": (6, 4),
    "lecun(0.5)": (6, 4),
    "zeros": (H, 5),
    "ones": (H, 5),
    "uniform": (H, 5),
    "uniform(-2, 3)": (H, 5),
    "log_uniform(0.5, 8)": (H,),
    "normal(0.5)": (H, 5),
    "xavier": (H, 5),
    "xavier_normal": (H, 5),
    "xavier_uniform": (H, 5),
    "kaiming": (H, 5),
    "kaiming_normal": (H, 5),
    "kaiming_uniform": (H, 5),
    "orthogonal": (H, 5),
    "orthogonal(2)": (H, 5),
    "identity": (H, 5),
    "identity(0.5)": (H, 5),
    "spectral_radius(0.9)": (H, H),
    "antisymmetric(0.5)": (H, H),
    "chrono(100)": (H,),
    "minus(b)": (H,),
    "linspace(-1, 1)": (H,),
    "periods(1, 2, 4, 8)": (H,),
    "upper_blocks(4)": (H, H),
    "legendre_a(50)": (H, H),
    "legendre_b(50)": (H,),
    "lru_nu(0.5, 0.99)": (H,),
    "lru_theta(3.1)": (H,),
    "lru_gamma(b)": (H,),
}
FIXED = {"zeros", "ones", "identity", "linspace", "periods", "upper_blocks", "legendre_a", "legendre_b"}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
RULES = pytest.mark.parametrize(("rule", "shape"), EXAMPLES.items(), ids=list(EXAMPLES))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(rule: float | str, *shape: int, dtype: torch.dtype = torch.float64, seed: int = 0, hidden: int = H) -> Tensor:
    """A parameter filled by a rule; one that refers to another refers to the numbers -1/2."""
    value = torch.full(shape, torch.nan, dtype=dtype)
    initialize(value, rule, hidden, seeded(seed), torch.full(shape, -0.5, dtype=dtype))
    return value


def assert_even(value: Tensor, low: float, high: float) -> None:
    """Within low..high, and each tenth of the way holds a tenth of the numbers, to five standard deviations."""
    value = value.flatten().double()
    assert low <= float(value.min()) and float(value.max()) <= high
    count = torch.histc(value, 10, low, high)
    n = value.numel()
    assert float((count - n / 10).abs().max()) < 5 * math.sqrt(n * 0.09)


def assert_normal(value: Tensor, std: float) -> None:
    """The mean, the deviation and the share within one deviation are a normal's, to five standard errors."""
    value, n = value.flatten().double(), value.numel()
    assert abs(float(value.mean())) < 5 * std / math.sqrt(n)
    assert abs(float(value.std()) / std - 1) < 5 / math.sqrt(2 * n)
    assert abs(float((value.abs() < std).double().mean()) - 0.6827) < 5 * math.sqrt(0.2166 / n)


# ---------------------------------------------------------------- every rule


def test_every_row_of_the_table_has_its_example() -> None:
    assert {rule.partition("(")[0] for rule in EXAMPLES} == set(KINDS)


@RULES
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_rule_fills_all_in_every_dtype(rule: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The numbers of float32, rounded; float64 may draw its own."""
    value = draw(rule, *shape, dtype=dtype)
    assert value.isfinite().all()
    if dtype != torch.float64:
        assert torch.equal(value, draw(rule, *shape, dtype=torch.float32).to(dtype))


@RULES
def test_a_generator_repeats_the_numbers(rule: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    first = draw(rule, *shape)
    torch.manual_seed(2)
    assert torch.equal(first, draw(rule, *shape))
    if rule.partition("(")[0] not in FIXED and "(b)" not in rule:
        assert not torch.equal(first, draw(rule, *shape, seed=1))


@RULES
def test_the_global_seed_repeats_the_numbers(rule: str, shape: tuple[int, ...]) -> None:
    def once() -> Tensor:
        torch.manual_seed(5)
        value = torch.empty(shape)
        initialize(value, rule, H, None, torch.ones(shape))
        return value

    assert torch.equal(once(), once())


@RULES
def test_nothing_to_fill_is_no_error(rule: str, shape: tuple[int, ...]) -> None:
    initialize(torch.empty([0] * len(shape)), rule, H, None, torch.empty([0] * len(shape)))
    initialize(torch.empty(shape, device="meta"), rule, H)


@RULES
def test_one_unit_is_filled(rule: str, shape: tuple[int, ...]) -> None:
    assert draw(rule, *[1] * len(shape), hidden=1).isfinite().all()


@RULES
def test_a_rule_writes_in_place_into_parameters_and_views(rule: str, shape: tuple[int, ...]) -> None:
    parameter = torch.nn.Parameter(torch.full((*reversed(shape),), torch.nan, dtype=torch.float64))
    initialize(parameter.mT if len(shape) == 2 else parameter, rule, H, seeded(), torch.full(shape, -0.5))
    assert parameter.grad_fn is None and parameter.requires_grad
    meant = draw(rule, *shape)
    assert torch.equal(parameter.detach().mT if len(shape) == 2 else parameter.detach(), meant)


@RULES
def test_a_rule_is_taken_from_a_cell(rule: str, shape: tuple[int, ...]) -> None:
    """In `@cell(init=...)` and over the default of a layer: the same text."""
    name = "U" if len(shape) == 2 else "b_2"
    rule = rule.replace("(b)", "(b_1)")

    def step(p: Any, x: Any, h: Any) -> Any:
        return ostinato.tanh(p.W @ x + p.U @ h + p.b_1 + p.b_2)

    program = ostinato.cell(init={name: rule})(step).program()
    assert rules_for(program)[name] == rule
    assert rules_for(ostinato.cell(step).program(), {name: rule})[name] == rule
    assert Program.from_json(program.to_json()).init == ((name, rule),)


# ---------------------------------------------------------------- what each rule is


def test_numbers_zeros_ones() -> None:
    for rule, number in ((1.5, 1.5), (2, 2.0), (-1, -1.0), ("zeros", 0.0), ("ones", 1.0)):
        for shape in ((3,), (3, 4), ()):
            assert torch.equal(draw(rule, *shape), torch.full(shape, number, dtype=torch.float64))


def test_uniform_is_even() -> None:
    assert_even(draw("uniform", 100, 50, hidden=16), -0.25, 0.25)
    assert_even(draw("uniform(-2, 3)", 100, 50), -2, 3)
    assert torch.equal(draw("uniform(2, 2)", 5), torch.full((5,), 2.0, dtype=torch.float64))


def test_log_uniform_has_an_even_logarithm() -> None:
    assert_even(draw("log_uniform(0.001, 1000)", 5000).log(), math.log(0.001), math.log(1000))
    torch.testing.assert_close(draw("log_uniform(3, 3)", 5), torch.full((5,), 3.0, dtype=torch.float64))


def test_normal_xavier_kaiming_have_their_variance() -> None:
    assert_normal(draw("normal(0.25)", 100, 50), 0.25)
    assert torch.equal(draw("normal(0)", 5), torch.zeros(5, dtype=torch.float64))
    assert_even(draw("xavier", 100, 50), -math.sqrt(6 / 150), math.sqrt(6 / 150))
    assert_normal(draw("xavier_normal", 100, 50), math.sqrt(2 / 150))
    assert_normal(draw("kaiming", 100, 50), math.sqrt(2 / 50))
    assert_even(draw("kaiming_uniform", 100, 50), -math.sqrt(6 / 50), math.sqrt(6 / 50))
    assert torch.equal(draw("kaiming", 10, 5), draw("kaiming_normal", 10, 5))
    assert torch.equal(draw("xavier", 10, 5), draw("xavier_uniform", 10, 5))


@pytest.mark.parametrize("shape", [(6, 6), (7, 4), (4, 7), (1, 1)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape: tuple[int, int]) -> None:
    for rule, gain in (("orthogonal", 1.0), ("orthogonal(0.5)", 0.5)):
        u = draw(rule, *shape)
        product = u.T @ u if shape[0] >= shape[1] else u @ u.T
        torch.testing.assert_close(product, gain**2 * torch.eye(min(shape), dtype=torch.float64))


def test_identity_leaves_or_scales_what_it_multiplies() -> None:
    x = torch.randn(6, dtype=torch.float64, generator=seeded())
    assert torch.equal(draw("identity", 6, 6) @ x, x)
    assert torch.equal(draw("identity(0.5)", 6, 6) @ x, 0.5 * x)
    assert torch.equal(draw("identity", 4, 6) @ x, x[:4])


@pytest.mark.parametrize("size", [1, 2, 7, 40])
@pytest.mark.parametrize("radius", [0.0, 0.9, 1.5])
def test_spectral_radius_is_the_modulus_of_the_largest_eigenvalue(size: int, radius: float) -> None:
    for seed in range(5):
        value = draw(f"spectral_radius({radius})", size, size, seed=seed)
        assert float(torch.linalg.eigvals(value).abs().max()) == pytest.approx(radius, abs=1e-12)


def test_antisymmetric_is_minus_its_transpose() -> None:
    value = draw("antisymmetric(0.5)", 80, 80)
    assert torch.equal(value, -value.T)
    assert_normal(value[torch.triu(torch.ones(80, 80), 1).bool()], 0.5)
    assert float(torch.linalg.eigvals(value).real.abs().max()) < 1e-12  # it neither grows nor shrinks


def test_chrono_remembers_for_times_that_are_even() -> None:
    """A gate sigmoid(b) keeps a value for about 1 / (1 - sigmoid(b)) = 1 + exp(b) steps: even within 2..t_max."""
    bias = draw("chrono(100)", 5000)
    assert_even(1 / (1 - bias.sigmoid()), 2, 100)
    assert torch.equal(draw("chrono(2)", 5), torch.zeros(5, dtype=torch.float64))


def test_linspace_is_evenly_spaced() -> None:
    torch.testing.assert_close(draw("linspace(-1, 1)", 5), torch.tensor([-1, -0.5, 0, 0.5, 1], dtype=torch.float64))


def test_periods_are_equal_blocks() -> None:
    assert draw("periods(1, 2, 4)", 6).tolist() == [1, 1, 2, 2, 4, 4]
    assert draw("periods(1, 2, 4, 8)", 4).tolist() == [1, 2, 4, 8]
    for size in range(1, 12):  # where they cannot be equal they differ by one
        found = draw("periods(1, 2, 4)", size).tolist()
        assert found == sorted(found)
        counts = [found.count(p) for p in (1, 2, 4)]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("size", [4, 8, 9, 3])
def test_upper_blocks_let_slower_blocks_speak_to_faster_ones(size: int) -> None:
    """Unit i hears unit j where j's period is at least its own (Koutník et al. 2014)."""
    periods = draw("periods(1, 2, 4, 8)", size)
    mask = draw("upper_blocks(4)", size, size)
    for i, j in itertools.product(range(size), repeat=2):
        assert float(mask[i, j]) == float(periods[j] >= periods[i])


def test_legendre_memory_tells_the_past() -> None:
    """Fed with a slow signal, the memory's coefficients times Legendre polynomials give it theta * r steps ago."""
    theta, n = 200.0, 12
    a, b = draw(f"legendre_a({theta})", n, n), draw(f"legendre_b({theta})", n)
    assert torch.equal(draw(f"legendre_b({theta})", n, 1)[:, 0], b)
    signal = torch.sin(torch.arange(1000, dtype=torch.float64) / 40)
    m = torch.zeros(n, dtype=torch.float64)
    for u in signal:
        m = a @ m + b * u
    for r in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = 2 * r - 1  # the shifted polynomials, by their recursion
        polynomials = [1.0, at]
        for k in range(1, n - 1):
            polynomials.append(((2 * k + 1) * at * polynomials[k] - k * polynomials[k - 1]) / (k + 1))
        told = float(torch.tensor(polynomials, dtype=torch.float64) @ m)
        # held over each step, the newest value stands half a step further back
        assert told == pytest.approx(math.sin((999.5 - theta * r) / 40), abs=2e-3)


def test_legendre_memory_has_no_other_shape() -> None:
    with pytest.raises(CellError, match=r"fills a vector or one column, not a tensor \[4, 2\]"):
        draw("legendre_b(10)", 4, 2)


def test_lru_draws_eigenvalues_evenly_over_a_ring() -> None:
    radius = (-draw("lru_nu(0.4, 0.9)", 5000).exp()).exp()
    assert_even(radius.square(), 0.16, 0.81)
    assert_even(draw("lru_theta(3.1)", 5000).exp(), 0, 3.1)
    for rule in ("lru_nu(0, 1)", "lru_nu(1, 1)", "lru_nu(0, 0)"):
        assert draw(rule, 50).isfinite().all()


def test_lru_gamma_keeps_the_state_at_the_size_of_the_input() -> None:
    """gamma² / (1 - r²) = 1: the variance of h = r h + gamma x with x white."""
    parameters = {"nu": torch.empty(50, dtype=torch.float64), "gamma": torch.empty(50, dtype=torch.float64)}
    initialize_all(parameters, {"gamma": "lru_gamma(nu)", "nu": "lru_nu(0.4, 0.9)"}, 50, seeded())
    radius = (-parameters["nu"].exp()).exp()
    torch.testing.assert_close(
        parameters["gamma"].exp().square() / (1 - radius.square()), torch.ones(50, dtype=torch.float64)
    )
