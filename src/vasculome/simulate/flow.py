"""Microbubbles that flow along a vessel graph, with Poiseuille's profile across the lumen."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from vasculome.simulate.bubbles import BubbleTable, assemble
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

    Returns
    -------
    BubbleTable
        Velocity is the fluid's where the bubble is, along the axis.
    """
    depth = 3 - graph.ndim
    nodes = np.zeros((len(graph.positions_um), 3))
    nodes[:, depth:] = graph.positions_um
    by_start = np.argsort(graph.edges[:, 0], kind="stable")
    edges, radius, flow = (
        graph.edges[by_start],
        graph.radius_um[by_start],
        graph.flow_um3_s[by_start],
    )
    volume = graph.volume_um3[by_start] * OUTERMOST**2
    first_edge = np.searchsorted(edges[:, 0], np.arange(len(nodes) + 1))

    concentration = mean_bubbles / volume.sum()
    duration_s = n_frames / frame_rate_hz
    # Of Poiseuille's flux, the part that passes within the outermost bubble's distance.
    core_flux = OUTERMOST**2 * (2 - OUTERMOST**2)
    source = np.flatnonzero(np.isin(edges[:, 0], graph.inlets))
    n_entering = rng.poisson(concentration * core_flux * flow[source] * duration_s)
    n_present = rng.poisson(mean_bubbles)
    n_appearing = rng.poisson(mean_bubbles * duration_s / lifetime_s)
    n_anywhere = n_present + n_appearing
    entering = int(n_entering.sum())

    edge = np.concatenate(
        [
            rng.choice(len(edges), size=n_anywhere, p=volume / volume.sum()),
            np.repeat(source, n_entering),
        ]
    )
    along = np.concatenate([rng.random(n_anywhere), np.zeros(entering)])
    area = OUTERMOST**2 * rng.random(n_anywhere)
    core_area = 1 - np.sqrt(1 - core_flux * rng.random(entering))
    rho = np.sqrt(np.concatenate([area, core_area]))
    birth = np.concatenate([np.zeros(n_present), rng.random(n_appearing + entering) * n_frames])
    age = rng.standard_exponential(len(edge)) * lifetime_s * frame_rate_hz
    death = np.minimum(birth + age, n_frames)
    side = rng.normal(size=(len(edge), 3))

    first_row = np.concatenate([[0], np.cumsum(np.ceil(death) - np.ceil(birth))]).astype(np.int64)
    frame = np.full(first_row[-1], -1, dtype=np.int64)
    position = np.empty((first_row[-1], 3))
    velocity = np.empty((first_row[-1], 3))
    _drift(
        nodes, edges, radius, flow, first_edge, edge, along, rho, birth, side, first_row,
        1 / frame_rate_hz, rng, frame, position, velocity,
    )  # fmt: skip
    kept = frame >= 0
    bubble = np.repeat(np.arange(len(edge)), np.diff(first_row))
    return assemble(
        bubble=bubble[kept],
        frame=frame[kept],
        position_um=position[kept, depth:],
        velocity_mm_s=1e-3 * velocity[kept, depth:],
        rng=rng,
    )


@njit(cache=True)
def _drift(
    nodes: Float,
    edges: Int,
    radius: Float,
    flow: Float,
    first_edge: Int,
    bubble_edge: Int,
    bubble_along: Float,
    bubble_rho: Float,
    birth: Float,
    bubble_side: Float,
    first_row: Int,
    frame_s: float,
    rng: np.random.Generator,
    frame: Int,
    position: Float,
    velocity: Float,
) -> None:
    """Follow each bubble from its birth; fill its rows until it leaves."""
    for i in range(len(bubble_edge)):
        e, rho, side = bubble_edge[i], bubble_rho[i], bubble_side[i].copy()
        tangent, length, speed = _enter(nodes, edges, radius, flow, e, rho)
        _turn_across(side, tangent)
        done = bubble_along[i] * length
        # Where centre lines bend or change radius, what is missing to a continuous path; the
        # bubble makes it up as fast as it advances.
        slip = np.zeros(3)
        now = np.ceil(birth[i])
        left_s = (now - birth[i]) * frame_s
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
            frame[row] = int(now)
            position[row] = nodes[edges[e, 0]] + done * tangent + rho * radius[e] * side + slip
            velocity[row] = speed * tangent
            now += 1
            left_s = frame_s


@njit(cache=True)
def _enter(
    nodes: Float, edges: Int, radius: Float, flow: Float, edge: int, rho: float
) -> tuple[Float, float, float]:
    """Return an edge's direction, its length, and the speed of a bubble there."""
    tangent = nodes[edges[edge, 1]] - nodes[edges[edge, 0]]
    length = np.sqrt((tangent**2).sum())
    speed = 2 * (1 - rho * rho) * flow[edge] / (np.pi * radius[edge] ** 2)
    return tangent / length, length, speed


@njit(cache=True)
def _turn_across(side: Float, tangent: Float) -> None:
    """Turn a unit vector to be perpendicular to the vessel, as little as possible."""
    side -= (side * tangent).sum() * tangent
    side /= np.sqrt((side**2).sum())


@njit(cache=True)
def _shrink(vector: Float, by: float) -> None:
    length = np.sqrt((vector**2).sum())
    if length <= by:
        vector[:] = 0.0
    else:
        vector *= 1 - by / length
