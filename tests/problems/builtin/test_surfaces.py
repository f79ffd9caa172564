"""Normals of planes that a camera sees; none at edges, borders and pixels without depth."""

import math

import pytest
import torch

from steelyard.problems.builtin.surfaces import RADIUS, Camera, surface_normals

CAMERA = Camera(focal=(130.0, 128.0), centre=(41.0, 27.0))
HEIGHT, WIDTH = 60, 80
FINE = 10 / 255


def plane(normal, distance, unit=FINE):
    """Depth in units of the plane ``normal·X = distance``."""
    x = (torch.arange(WIDTH) - CAMERA.centre[0]) / CAMERA.focal[0]
    y = (torch.arange(HEIGHT)[:, None] - CAMERA.centre[1]) / CAMERA.focal[1]
    return (distance / (normal[0] * x + normal[1] * y + normal[2]) / unit).round().to(torch.uint8)[None]


def inner(normals):
    return normals[0, :, RADIUS:-RADIUS, RADIUS:-RADIUS].flatten(1).T.float()


@pytest.mark.parametrize("tilt", [(0.0, 0.0, 1.0), (0.6, 0.0, 0.8), (-0.5, 0.5, 0.7), (0.0, 0.8, 0.6)])
def test_a_plane_has_its_normal_everywhere_facing_the_camera(tilt):
    tilt = torch.tensor(tilt) / torch.tensor(tilt).norm()
    # Depth comes in steps of 4 cm; at 3 m that moves a normal by a few degrees.
    normals = inner(surface_normals(plane(tilt.tolist(), 3.0), FINE, CAMERA))
    found = normals / normals.norm(dim=1, keepdim=True)
    degrees = torch.rad2deg(torch.acos((found @ -tilt).clamp(-1, 1)))
    assert (normals.norm(dim=1) - 127).abs().max() < 1
    assert degrees.max() < 8
    assert degrees.mean() < 2.5


def test_the_floor_points_up():
    floor = plane((0.0, math.sin(0.9), math.cos(0.9)), 2.0)
    assert inner(surface_normals(floor, FINE, CAMERA))[:, 1].max() < -60  # y runs down


def test_there_is_none_at_an_edge_a_border_or_near_a_pixel_without_depth():
    measured = torch.full((1, HEIGHT, WIDTH), 60, dtype=torch.uint8)
    measured[:, :, 50:] = 120
    measured[:, 10, 20] = 0
    has = surface_normals(measured, FINE, CAMERA)[0].ne(0).any(0)
    assert not has[:RADIUS].any()
    assert not has[:, -RADIUS:].any()
    assert not has[:, 50 - RADIUS : 50 + RADIUS].any()
    assert not has[10 - RADIUS : 11 + RADIUS, 20 - RADIUS : 21 + RADIUS].any()
    assert has[11 + RADIUS : -RADIUS, RADIUS : 50 - RADIUS].all()
    assert has[RADIUS:-RADIUS, 50 + RADIUS : -RADIUS].all()


def test_many_images_are_worked_off_in_parts():
    one = plane((0.1, 0.2, 0.97), 2.5)
    many = surface_normals(one.expand(70, -1, -1).contiguous(), FINE, CAMERA)
    assert torch.equal(many, surface_normals(one, FINE, CAMERA).expand_as(many))
