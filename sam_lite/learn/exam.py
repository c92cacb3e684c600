"""训练途中的小考：隔一阵在几十张评测场景上量一次平均 IoU，好画出质量随时间的曲线。"""

from __future__ import annotations

import numpy as np
import torch

from ..errors import require
from ..learn.evaluation import Task, eval_seeds, make_task, score_model
from ..learn.team import Team
from ..model import Sam
from ..predictor import SamPredictor
from ..scenes import make_scene

SCORES = ("box", "click", "click_oracle", "clicks3")  # 同 evaluation.METHODS 的键


class Exam:
    """每训练 ``every`` 分钟考一次，几个进程分着评；考试不算训练的时间。

    参数：
        every: 隔多少分钟。
        scenes: 用 ``sam-lite evaluate`` 的头多少张场景。
        team: 一起训练的几个进程。
    """

    def __init__(self, every: float, scenes: int, team: Team) -> None:
        require("scipy.ndimage", "训练途中打分")
        self.every, self.team = every, team
        self.seeds = eval_seeds(scenes)
        self.taken: int | None = None  # 到第几个 every 分钟了
        self.tasks: list[Task] = []  # 自己评的那几题，第一次考的时候出

    def due(self, elapsed: float) -> bool:
        """训练了 elapsed 秒，该不该考；第一次问只记下起点。"""
        before, self.taken = self.taken, int(elapsed / 60 / self.every)
        return before is not None and self.taken > before

    @torch.no_grad()
    def score(self, sam: Sam) -> dict[str, float]:
        """平均 IoU：一个框、一次点击（IoU 头选的、三张里最好的）、三次点击。"""
        if not self.tasks:
            mine = [self.seeds[i] for i in self.team.mine(len(self.seeds))]
            found = [make_task(make_scene(seed), "random", seed) for seed in mine]
            self.tasks = [task for task in found if task is not None]
        predictor = SamPredictor(sam)
        rows = [score_model(predictor, task) for task in self.tasks]
        rows = self.team.gather(rows)
        return {
            n: float(np.concatenate([row[n] for row in rows]).mean()) for n in SCORES
        }
