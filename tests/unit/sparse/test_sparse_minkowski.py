"""Our engine against MinkowskiEngine: the same weights, the same points, forward and backward."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from vasculome.errors import UserError
from vasculome.sparse import backend, layers

BUILT = importlib.util.find_spec("MinkowskiEngine") is not None
needs_engine = pytest.mark.skipif(
    not BUILT, reason="MinkowskiEngine is not installed: `make minkowski` builds it (10 minutes)"
)
BOUND = 1e-5


def points(dimension: int, *, n: int = 300, side: int = 8, stride=1, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.randint(-2, side, (n, 1 + dimension), generator=generator)
    coordinates[:, 0] = torch.arange(n) % 2
    steps = torch.tensor([1, *([stride] * dimension if isinstance(stride, int) else stride)])
    coordinates = (coordinates * steps).unique(dim=0)
    coordinates = coordinates[torch.randperm(len(coordinates), generator=generator)]
    return coordinates.int(), torch.randn(len(coordinates), channels, generator=generator)


def order(coordinates: torch.Tensor) -> torch.Tensor:
    """Rows in the order of their coordinates."""
    return torch.unique(coordinates, dim=0, return_inverse=True)[1].argsort()


def relative(found: torch.Tensor, true: torch.Tensor) -> float:
    assert found.shape == true.shape
    return float((found - true).abs().max() / true.abs().max())


def answers(engine, weights, make, coordinates, features, forward, **options):
    """Coordinates, output and gradients of one engine, rows in the order of coordinates."""
    leaf = features.clone().requires_grad_()
    x = engine.SparseTensor.from_points(coordinates, leaf, **options)
    module = make(engine)
    module.load_state_dict(weights)
    y = forward(engine, module, x)
    rows = order(y.coordinates)
    scale = torch.randn(y.features.shape, generator=torch.Generator().manual_seed(7))
    (y.features[rows] * scale).sum().backward()
    gradients = [p.grad for _, p in sorted(module.named_parameters())]
    return y.coordinates[rows].int(), y.stride, [y.features[rows].detach(), leaf.grad, *gradients]


def compare(make, coordinates, features, forward=lambda engine, module, x: module(x), **options):
    torch.manual_seed(0)
    weights = make(layers).state_dict()
    ours = answers(layers, weights, make, coordinates, features, forward, **options)
    theirs = answers(backend("minkowski"), weights, make, coordinates, features, forward, **options)
    assert torch.equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]
    for found, true in zip(ours[2], theirs[2], strict=True):
        assert relative(found, true) <= BOUND


@needs_engine
@pytest.mark.parametrize("dimension", [2, 3, 4])
@pytest.mark.parametrize(
    ("size", "stride", "dilation"),
    [(3, 1, 1), (2, 2, 1), (3, 2, 1), (2, 1, 1), (5, 1, 1), (3, 1, 2), ("mixed", "mixed", 1)],
)
def test_convolution(dimension, size, stride, dilation):
    if size == "mixed":
        size, stride = (3, 2, 1, 4)[:dimension], (2, 1, 1, 3)[:dimension]
    if size == 5 and dimension == 4:
        size = (5, 1, 3, 3)
    coordinates, features = points(dimension)
    compare(
        lambda engine: engine.Convolution(
            3,
            5,
            kernel_size=size,
            stride=stride,
            dilation=dilation,
            bias=True,
            dimension=dimension,
        ),
        coordinates,
        features,
    )


@needs_engine
@pytest.mark.parametrize("dimension", [2, 3, 4])
@pytest.mark.parametrize(
    ("size", "stride", "dilation"),
    [(2, 2, 1), (3, 2, 1), (3, 3, 1), (3, 1, 2), (4, 2, 1), ((2, 1, 1, 3), (2, 1, 1, 4), 1)],
)
def test_transposed_convolution_onto_generated_coordinates(dimension, size, stride, dilation):
    if not isinstance(size, int):
        size, stride = size[:dimension], stride[:dimension]
    coordinates, features = points(dimension, n=60, stride=stride)
    compare(
        lambda engine: engine.ConvolutionTranspose(
            3,
            4,
            kernel_size=size,
            stride=stride,
            dilation=dilation,
            bias=True,
            dimension=dimension,
        ),
        coordinates,
        features,
        stride=stride,
    )


@needs_engine
@pytest.mark.parametrize("dimension", [2, 3, 4])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), ((2, 1, 3, 1), (2, 1, 2, 1))])
def test_down_and_up_to_the_coordinates_there_were(dimension, size, stride):
    if not isinstance(size, int):
        size, stride = size[:dimension], stride[:dimension]
    coordinates, features = points(dimension)
    options = {"kernel_size": size, "stride": stride, "dimension": dimension}

    def forward(engine, module, x):
        down = module[0](x)
        return module[1](down, x)

    compare(
        lambda engine: torch.nn.ModuleList(
            [engine.Convolution(3, 4, **options), engine.ConvolutionTranspose(4, 2, **options)]
        ),
        coordinates,
        features,
        forward,
    )


@needs_engine
@pytest.mark.parametrize("dimension", [2, 3, 4])
@pytest.mark.parametrize("kind", ["MaxPooling", "AvgPooling", "SumPooling"])
@pytest.mark.parametrize(
    ("size", "stride"), [(2, 2), (3, 3), (3, 2), (3, 1), ((2, 1, 4, 2), (2, 1, 4, 2))]
)
def test_pooling(dimension, kind, size, stride):
    if not isinstance(size, int):
        size, stride = size[:dimension], stride[:dimension]
    coordinates, features = points(dimension)
    compare(
        lambda engine: getattr(engine, kind)(kernel_size=size, stride=stride, dimension=dimension),
        coordinates,
        features,
    )


@needs_engine
@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_pruning_and_convolution_of_what_is_left(dimension):
    coordinates, features = points(dimension)

    def forward(engine, module, x):
        return module(engine.Pruning()(x, x.features[:, 0] > 0))

    compare(
        lambda engine: engine.Convolution(3, 4, kernel_size=3, stride=2, dimension=dimension),
        coordinates,
        features,
        forward,
    )


@needs_engine
@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_union_sum_and_concatenation(dimension):
    coordinates, features = points(dimension)
    others, values = points(dimension, seed=1)

    def forward(engine, module, x):
        # Gradients go through both parts of the union: the other one's features depend on x too.
        scaled = values * x.features.mean(0)
        y = engine.SparseTensor.from_points(others, scaled, manager=x.manager)
        both = engine.union(x, y)
        return engine.cat(both + both * module(both), both)

    compare(lambda engine: engine.Linear(3, 3), coordinates, features, forward)


@needs_engine
@pytest.mark.parametrize("dimension", [2, 3, 4])
@pytest.mark.parametrize("given", [False, True])
def test_from_dense_and_to_dense(dimension, given):
    generator = torch.Generator().manual_seed(3)
    shape = (9, 8, 6, 5)[:dimension]
    mask = torch.rand((2, *shape), generator=generator) < 0.3
    dense = torch.randn((2, 3, *shape), generator=generator) * mask[:, None]
    options = {"kernel_size": 2, "stride": (1, 2, 2, 1)[:dimension], "dimension": dimension}
    scale = None
    found = []
    for engine in (layers, backend("minkowski")):
        torch.manual_seed(0)
        module = engine.Convolution(3, 4, **options)
        leaf = dense.clone().requires_grad_()
        y = module(engine.SparseTensor.from_dense(leaf, mask=mask if given else None)).to_dense(
            shape if given else None
        )
        scale = torch.randn_like(y) if scale is None else scale
        (y * scale).sum().backward()
        found.append([y.detach(), leaf.grad, module.kernel.grad])
    for ours, theirs in zip(*found, strict=True):
        assert relative(ours, theirs) <= BOUND


@needs_engine
@pytest.mark.parametrize("dimension", [2, 3, 4])
@pytest.mark.parametrize("kind", ["BatchNorm", "InstanceNorm"])
def test_normalization(dimension, kind):
    coordinates, features = points(dimension)
    compare(lambda engine: getattr(engine, kind)(3), coordinates, features)


@needs_engine
@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_a_small_network(dimension):
    coordinates, features = points(dimension)
    down = {"kernel_size": 2, "stride": 2, "dimension": dimension}

    def make(engine):
        return torch.nn.ModuleDict(
            {
                "wide": engine.Convolution(3, 8, kernel_size=3, dimension=dimension),
                "norm": engine.BatchNorm(8),
                "elu": engine.Pointwise(torch.nn.ELU()),
                "point": engine.Convolution(8, 8, kernel_size=1, dimension=dimension),
                "pool": engine.MaxPooling(**down),
                "coarse": engine.Convolution(8, 8, kernel_size=3, dimension=dimension),
                "up": engine.ConvolutionTranspose(8, 8, **down),
            }
        )

    def forward(engine, module, x):
        skip = module["elu"](module["norm"](module["wide"](x)))
        skip = module["point"](skip)
        up = module["up"](module["coarse"](module["pool"](skip)), skip)
        return engine.cat(up, skip)

    compare(make, coordinates, features, forward)


@needs_engine
def test_the_wrapper_refuses_what_ours_refuses():
    engine = backend("minkowski")
    twice = torch.tensor([[0, 1, 1], [0, 1, 1]])
    with pytest.raises(ValueError, match="more than once"):
        engine.SparseTensor.from_points(twice, torch.ones(2, 1))
    with pytest.raises(ValueError, match="eps"):
        engine.InstanceNorm(3, eps=1e-3)
    x = engine.SparseTensor.from_points(twice[:1], torch.ones(1, 1))
    y = engine.SparseTensor.from_points(twice[:1] + 1, torch.ones(1, 1), manager=x.manager)
    with pytest.raises(ValueError, match="different coordinates"):
        _ = x + y


@pytest.mark.skipif(BUILT, reason="MinkowskiEngine is installed")
def test_without_the_engine_the_user_is_told_how_to_get_it():
    with pytest.raises(UserError, match="make minkowski"):
        backend("minkowski")
