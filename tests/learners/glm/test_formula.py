import pytest

from haina.errors import LearnerError
from haina.learners.glm import Formula

COLUMNS = ("y", "a", "b", "c", "bp.sys", "x y")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("y ~ a*b + c", "y ~ a + b + c + a:b"),
        ("y~(a+b+c)^2-a:b", "y ~ a + b + c + a:c + b:c"),
        ("y ~ b + a + a:b", "y ~ b + a + b:a"),
        ("y ~ a/b", "y ~ a + a:b"),
        ("y ~ .", "y ~ a + b + c + bp.sys + `x y`"),
        ("log(y) ~ . - a + c:a", "log(y) ~ b + c + bp.sys + `x y` + a:c"),
        ("y ~ `x y`*a + log(`x y`) + 0", "y ~ `x y` + a + log(`x y`) + `x y`:a - 1"),
        ("y ~ bp.sys + exp( bp.sys )", "y ~ bp.sys + exp(bp.sys)"),
        (
            "y ~ I((a+1)^2) + I(-a^2/2) + log(a+100000) - 1",
            "y ~ I((a + 1)^2) + I(-a^2/2) + log(a + 1e+05) - 1",
        ),
        ("y ~ I(a-(b-c)) + I((a/b)/c) + I(a/(b/c))", "y ~ I(a - (b - c)) + I(a/b/c) + I(a/(b/c))"),
        ("y ~ I((-a)^2) + I(a**2)", "y ~ I((-a)^2) + I(a^2)"),
        ("y ~ a + offset(log(b))", "y ~ a + offset(log(b))"),
        ("Surv(log(a), b) ~ c + strata(y, bp.sys)", "Surv(log(a), b) ~ c + strata(y, bp.sys)"),
        ("y ~ factor(a)*b", "y ~ factor(a) + b + factor(a):b"),
        ("y ~ a + a", "y ~ a"),
        ("y ~ x.1 * lambda + log(x.1)", "y ~ x.1 + lambda + log(x.1) + x.1:lambda"),
        ("y ~ 1", "y ~ 1"),
        ("y ~ 0 + a", "y ~ a - 1"),
        ("y ~ -1 + a", "y ~ a - 1"),
    ],
)
def test_terms_are_written_out_as_r_sorts_them(written, meant):
    formula = Formula.parse(written, COLUMNS)
    assert formula.written == meant
    # What other languages are told needs no table to be read.
    assert Formula.parse(formula.text) == formula


def test_a_dot_is_spread_and_nothing_else():
    assert Formula.parse("y ~ .:bp.sys + `a.`", ("y", "x.1", "a b")).text == "y ~ (x.1 + `a b`):bp.sys + `a.`"


def test_columns_that_are_read():
    formula = Formula.parse("Surv(t, d) ~ log(a) * b + strata(c)")
    assert formula.columns == ("t", "d", "a", "b", "c")
    assert formula.declared == ("c",)


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("y ~ scale(a)", "at each site"),
        ("y ~ poly(a, 2)", r"at each site.*I\(age\^2\)"),
        ("y ~ bs(a)", "at each site"),
        ("y ~ np.log(a)", "no formula here may hold"),
        ("y ~ f(a)", "no formula here may hold"),
        ("y ~ log(a, 2)", "no formula here may hold"),
        ("y ~ log(a, base=2)", "no formula here may hold"),
        ("y ~ I(a if b else c)", "cannot be read"),
        ("y ~ I(lambda: a)", "cannot be read"),
        ("y ~ I(a @ b)", "no formula here may hold"),
        ("y ~ I(a == b)", "no formula here may hold"),
        ("y ~ I((lambda x: x)(a))", "cannot be read"),
        ("y ~ exec(a)", "no formula here may hold"),
        ("y ~ __import__('os')", "no meaning here"),
        ("y ~ a[0]", "no meaning here"),
        ("y ~ {a.__class__}", "no meaning here"),
        ("y ~ a; import os", "no meaning here"),
        ("y ~ a %in% b", "no meaning here"),
        ("y ~ a | b", "no meaning here"),
        ("y ~ 2:a", "the number 2"),
        ("y ~ I(2)", "names no column"),
        ("y ~ (a", "cannot be read"),
        ("y ~ a +", "cannot be read"),
        ("y ~ a^b", "cannot be read"),
        ("~ a", "one side only"),
        ("y ~ ", "one side only"),
        ("a + b", "0 times '~'"),
        ("y ~ a ~ b", "2 times '~'"),
        ("", "0 letters"),
        ("y ~ a\n", "one line"),
        ("y ~ " + "a" * 5000, "5004 letters"),
        ("y ~ a*b*c*d*e*f*g*h*i*j*k*l*m*n*o*p*q*r*s*t", "too many terms"),
        ("y ~ (a+b+c+d+e+f)^9", "too many terms"),
        ("y ~ (((a+b)^9)^9)^9", "too many terms"),
        ("y ~ offset(a):b", "inside a term"),
        ("y ~ factor(a + b)", "makes a factor of arithmetic"),
        ("Surv(a) ~ b", "1 parts"),
        ("Surv(a, b, c) ~ b", "3 parts"),
        ("Surv(a, log(b)) ~ c", "is arithmetic"),
        ("y ~ I(" + "-" * 3000 + "a)", "cannot be read"),
        ("y ~ I(" + "(" * 1500 + "a" + ")" * 1500 + ")", "cannot be read"),
    ],
)
def test_what_no_formula_may_hold(formula, words):
    with pytest.raises(LearnerError, match=words):
        Formula.parse(formula, COLUMNS)


def test_nothing_of_a_formula_runs(tmp_path):
    # Each would leave a file if any of it were evaluated.
    mark = tmp_path / "mark"
    for code in (
        f"open({str(mark)!r}, chr(119))",
        f"__import__(chr(111)+chr(115)).mkdir({str(mark)!r})",
        "exit(3)",
    ):
        with pytest.raises(LearnerError):
            Formula.parse(f"y ~ a + I({code})", COLUMNS)
        with pytest.raises(LearnerError):
            Formula.parse(f"I({code}) ~ a", COLUMNS)
    assert not mark.exists()
