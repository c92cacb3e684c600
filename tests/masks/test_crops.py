import numpy as np
import pytest
import torch

from sam_lite.masks.crops import (
    build_point_grid,
    generate_crop_boxes,
    is_box_near_crop_edge,
)


def test_grid_points_are_the_centres_of_their_cells():
    grid = build_point_grid(4)
    assert grid.shape == (16, 2)
    np.testing.assert_allclose(grid[0], [0.125, 0.125])
    np.testing.assert_allclose(grid[1], [0.375, 0.125])  # x 先走
    np.testing.assert_allclose(grid[-1], [0.875, 0.875])


@pytest.mark.parametrize("size", [(100, 160), (77, 33), (2, 90)])
def test_crops_cover_the_picture_and_overlap(size):
    boxes, layers = generate_crop_boxes(size, 2, 0.3)
    assert [layers.count(i) for i in range(3)] == [1, 4, 16]
    for layer in (1, 2):
        seen = np.zeros(size, int)
        for (x0, y0, x1, y1), at in zip(boxes, layers, strict=True):
            assert x0 >= 0 and x1 <= size[1] and y0 >= 0 and y1 <= size[0]
            if at == layer:
                seen[y0:y1, x0:x1] += 1
        assert (seen >= 1).all()
    assert generate_crop_boxes((100, 160), 1, 0.0)[0][1:3] == [
        [0, 0, 80, 50],
        [0, 50, 80, 100],
    ]


def test_boxes_cut_by_a_crop_are_found_but_not_at_the_picture_edge():
    crop, image = [100, 0, 200, 100], [0, 0, 300, 100]
    boxes = torch.tensor([[10, 30, 60, 70], [30, 0, 60, 100], [40, 40, 70, 70]])
    # 第一个贴着裁图的左边；第二个贴着的上、下也是原图的边；第三个在中间
    assert is_box_near_crop_edge(boxes, crop, image).tolist() == [True, False, False]


@pytest.mark.parametrize("near", [20, 21])
def test_twenty_pixels_still_count_as_near(near):
    """裁图的四边、原图的四边，都是正好 20 像素还算贴着。"""
    image = [0, 0, 400, 400]
    for side, sign in ((0, 1), (1, 1), (2, -1), (3, -1)):
        box = torch.tensor([[60, 60, 140, 140]])
        crop = [100, 100, 300, 300]
        box[0, side] = (0 if sign == 1 else 200) + sign * near  # 坐标在裁图里
        assert is_box_near_crop_edge(box, crop, image).item() == (near == 20)
        # 同一条边又离原图的边这么近：贴着原图的不算切断
        crop[side] = image[side] + sign * 5
        place = image[side] + sign * near
        box[0, side] = place - crop[side % 2]
        assert is_box_near_crop_edge(box, crop, image).item() == (near == 21)
