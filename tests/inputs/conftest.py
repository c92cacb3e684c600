import pytest

from inputs.common import PICTURE
from sam_lite.model import Sam
from sam_lite.predictor import SamPredictor


@pytest.fixture
def predictor(small_sam: Sam) -> SamPredictor:
    predictor = SamPredictor(small_sam)
    predictor.set_image(PICTURE)
    return predictor
