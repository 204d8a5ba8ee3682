"""Microbubbles that flow along a vessel graph, with Poiseuille's profile across the lumen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasculome.simulate.bubbles import BubbleSizes, BubbleTable, Rows, assemble
from vasculome.simulate.stream import Swarm, drift_blocks
from vasculome.simulate.trees import Float, Int, VesselGraph

# Bubbles keep clear of the wall; where nothing flows they would also stay for ever.
OUTERMOST = 0.95


def flow_on_graph(
    graph: VesselGraph,
    *,
    n_frames: int,
    frame_rate_hz: float,
    mean_bubbles: float,
    rng: np.random.Generator,
    lifetime_s: float = math.inf,
    sizes: BubbleSizes | None = None,
) -> BubbleTable:
    """Let bubbles drift through vessels in a steady state.

    Blood carries bubbles at one concentration everywhere: it brings new ones through the inlets,
    and new ones appear in the lumen at the rate at which others end their lifetime. A bubble keeps
    its relative distance ρ from the axis and moves at 2·(mean speed)·(1 − ρ²); at a branching it
    takes a branch with a probability in proportion to its flow; at an outlet it leaves. The number
    of bubbles in a frame is therefore Poisson distributed around ``mean_bubbles``.

    Parameters
    ----------
    graph
        Vessels in 2-D or 3-D. In 2-D they are tubes seen from the side, bubbles lie anywhere over
        their round section.
    mean_bubbles
        Mean number of bubbles in a frame, in the whole graph.
    lifetime_s
        Mean lifetime of a bubble that does not leave; it vanishes anywhere after an
        exponentially distributed time.
    sizes
        How bubbles differ in their echoes.

    Returns
    -------
    BubbleTable
        Velocity is the fluid's where the bubble is, along the axis.
    """
    pipes = _Pipes(graph, mean_bubbles, lifetime_s * frame_rate_hz, 1 / frame_rate_hz)
    swarm = pipes.newcomers(0, n_frames, rng)
    return assemble(pipes.advance(swarm, n_frames, rng), sizes=sizes or BubbleSizes(), rng=rng)


def flow_blocks(
    graph: VesselGraph,
    *,
    n_frames: int,
    frame_rate_hz: float,
    mean_bubbles: float,
    seed: int,
    lifetime_s: float = math.inf,
    sizes: BubbleSizes | None = None,
    block_frames: int = 100,
) -> Iterator[BubbleTable]:
    """Yield the bubbles of :func:`flow_on_graph` block by block, in bounded memory.

    The same seed gives the same rows whatever ``block_frames`` is, and the first frames are the
    same whatever ``n_frames`` is. They are not those of :func:`flow_on_graph`, which draws all its
    random numbers at once.

    Parameters
    ----------
    graph, n_frames, frame_rate_hz, mean_bubbles, lifetime_s, sizes
        As of :func:`flow_on_graph`.
    block_frames
        Frames yielded at a time.

    Yields
    ------
    BubbleTable
        Rows of ``block_frames`` frames, fewer at the end. Frames and tracks are numbered through.
    """
    pipes = _Pipes(graph, mean_bubbles, lifetime_s * frame_rate_hz, 1 / frame_rate_hz)
    return drift_blocks(
        pipes,
        n_frames=n_frames,
        block_frames=block_frames,
        sizes=sizes or BubbleSizes(),
        seed=seed,
    )


@dataclass
class _InPipes(Swarm):
    """Bubbles in vessels: (bubbles,) or (bubbles, 3).

    ``edge`` is where each is, ``along`` the part of the edge behind it, ``rho`` its distance from
    the axis over the radius, ``side`` a unit vector towards it, ``slip`` what is missing to a
    continuous path where centre lines bend.
    """

    edge: Int
    along: Float
    rho: Float
    side: Float
    slip: Float


class _Pipes:
    """Vessels in which bubbles drift, as arrays for the loop over bubbles."""

    def __init__(
        self, graph: VesselGraph, mean_bubbles: float, lifetime_frames: float, frame_s: float
    ) -> None:
        self._depth = 3 - graph.ndim
        self._nodes = np.zeros((len(graph.positions_um), 3))
        self._nodes[:, self._depth :] = graph.positions_um
        by_start = np.argsort(graph.edges[:, 0], kind="stable")
        self._edges = graph.edges[by_start]
        self._radius = graph.radius_um[by_start]
        self._flow = graph.flow_um3_s[by_start]
        self._first_edge = np.searchsorted(self._edges[:, 0], np.arange(len(self._nodes) + 1))
        self._volume = graph.volume_um3[by_start] * OUTERMOST**2
        self._source = np.flatnonzero(np.isin(self._edges[:, 0], graph.inlets))
        self._mean_bubbles = mean_bubbles
        self._lifetime_frames = lifetime_frames
        self._frame_s = frame_s
        self._n_named = 0

    def newcomers(self, first: int, stop: int, rng: np.random.Generator) -> _InPipes:
        """Return the bubbles born from one frame to another; with frame 0 those already there."""
        duration_s = (stop - first) * self._frame_s
        volume = self._volume
        concentration = self._mean_bubbles / volume.sum()
        # Of Poiseuille's flux, the part that passes within the outermost bubble's distance.
        core_flux = OUTERMOST**2 * (2 - OUTERMOST**2)
        n_entering = rng.poisson(concentration * core_flux * self._flow[self._source] * duration_s)
        n_present = rng.poisson(self._mean_bubbles) if first == 0 else 0
        n_appearing = rng.poisson(self._mean_bubbles * (stop - first) / self._lifetime_frames)
        n_anywhere = n_present + n_appearing
        entering = int(n_entering.sum())
        count = n_anywhere + entering

        chosen = rng.choice(len(volume), size=n_anywhere, p=volume / volume.sum())
        along = np.concatenate([rng.random(n_anywhere), np.zeros(entering)])
        area = OUTERMOST**2 * rng.random(n_anywhere)
        core_area = 1 - np.sqrt(1 - core_flux * rng.random(entering))
        birth = first + (stop - first) * rng.random(n_appearing + entering)
        birth = np.concatenate([np.zeros(n_present), birth])
        age = rng.standard_exponential(count) * self._lifetime_frames
        frame = np.ceil(birth).astype(np.int64)
        names = np.arange(self._n_named, self._n_named + count)
        self._n_named += count
        return _InPipes(
            name=names,
            frame=frame,
            left_s=(frame - birth) * self._frame_s,
            stop=np.ceil(birth + age),
            gone=np.zeros(count, np.bool_),
            edge=np.concatenate([chosen, np.repeat(self._source, n_entering)]),
            along=along,
            rho=np.sqrt(np.concatenate([area, core_area])),
            side=rng.normal(size=(count, 3)),
            slip=np.zeros((count, 3)),
        )

    def advance(self, swarm: _InPipes, stop: int, rng: np.random.Generator) -> Rows:
        """Let bubbles drift up to a frame; return their rows before it."""
        first_row = swarm.first_rows(stop)
        frame = np.full(first_row[-1], -1, dtype=np.int64)
        position, velocity = np.empty((first_row[-1], 3)), np.empty((first_row[-1], 3))
        _drift(
            self._nodes, self._edges, self._radius, self._flow, self._first_edge,
            swarm.edge, swarm.along, swarm.rho, swarm.side, swarm.slip, swarm.frame, swarm.left_s,
            swarm.gone, first_row, self._frame_s, rng, frame, position, velocity,
        )  # fmt: skip
        kept = frame >= 0
        return Rows(
            bubble=np.repeat(swarm.name, np.diff(first_row))[kept],
            frame=frame[kept],
            position_um=position[kept, self._depth :],
            velocity_mm_s=1e-3 * velocity[kept, self._depth :],
        )


@njit(cache=True, nogil=True)
def _drift(
    nodes: Float,
    edges: Int,
    radius: Float,
    flow: Float,
    first_edge: Int,
    bubble_edge: Int,
    bubble_along: Float,
    bubble_rho: Float,
    bubble_side: Float,
    bubble_slip: Float,
    bubble_frame: Int,
    bubble_left_s: Float,
    gone: NDArray[np.bool_],
    first_row: Int,
    frame_s: float,
    rng: np.random.Generator,
    frame: Int,
    position: Float,
    velocity: Float,
) -> None:
    """Follow each bubble; fill its rows until it leaves, and bring its state up to date."""
    for i in range(len(bubble_edge)):
        if first_row[i] == first_row[i + 1]:
            continue
        e, rho, side = bubble_edge[i], bubble_rho[i], bubble_side[i]
        tangent, length, speed = _enter(nodes, edges, radius, flow, e, rho)
        _turn_across(side, tangent)
        done = bubble_along[i] * length
        # Where centre lines bend or change radius, what is missing to a continuous path; the
        # bubble makes it up as fast as it advances.
        slip = bubble_slip[i]
        left_s = bubble_left_s[i]
        for row in range(first_row[i], first_row[i + 1]):
            while left_s * speed > length - done:
                left_s -= (length - done) / speed
                _shrink(slip, length - done)
                node = edges[e, 1]
                stop = first_edge[node + 1]
                if first_edge[node] == stop:
                    e = -1
                    break
                slip += rho * radius[e] * side
                e = first_edge[node]
                ticket = rng.random() * flow[e:stop].sum()
                while ticket > flow[e] and e < stop - 1:
                    ticket -= flow[e]
                    e += 1
                tangent, length, speed = _enter(nodes, edges, radius, flow, e, rho)
                _turn_across(side, tangent)
                slip -= rho * radius[e] * side
                done = 0.0
            if e < 0:
                break
            done += left_s * speed
            _shrink(slip, left_s * speed)
            frame[row] = bubble_frame[i]
            position[row] = nodes[edges[e, 0]] + done * tangent + rho * radius[e] * side + slip
            velocity[row] = speed * tangent
            bubble_frame[i] += 1
            left_s = frame_s
        gone[i] = e < 0
        bubble_edge[i] = e
        bubble_along[i] = done / length
        bubble_left_s[i] = left_s


@njit(cache=True, nogil=True)
def _enter(
    nodes: Float, edges: Int, radius: Float, flow: Float, edge: int, rho: float
) -> tuple[Float, float, float]:
    """Return an edge's direction, its length, and the speed of a bubble there."""
    tangent = nodes[edges[edge, 1]] - nodes[edges[edge, 0]]
    length = np.sqrt((tangent**2).sum())
    speed = 2 * (1 - rho * rho) * flow[edge] / (np.pi * radius[edge] ** 2)
    return tangent / length, length, speed


@njit(cache=True, nogil=True)
def _turn_across(side: Float, tangent: Float) -> None:
    """Turn a unit vector to be perpendicular to the vessel, as little as possible."""
    side -= (side * tangent).sum() * tangent
    side /= np.sqrt((side**2).sum())


@njit(cache=True, nogil=True)
def _shrink(vector: Float, by: float) -> None:
    length = np.sqrt((vector**2).sum())
    if length <= by:
        vector[:] = 0.0
    else:
        vector *= 1 - by / length
