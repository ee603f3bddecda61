"""Training curves."""

import pandas as pd

from lesionforge.nets.curves import curves_figure, loss_curves

HISTORY = pd.DataFrame(
    {
        "network": ["cnn1"] * 3 + ["cnn2"] * 2,
        "epoch": ["1", "2", "3", "1", "2"],
        "loss": ["0.9", "0.5", "0.4", "0.3", "0.2"],
        "val_loss": ["0.8", "0.6", "0.6", "n/a", "n/a"],
    }
)


def test_each_network_has_its_panel_and_its_best_epoch_a_ring() -> None:
    first, second = curves_figure(loss_curves(HISTORY)).axes
    assert [line.get_label() for line in first.lines] == ["training", "validation", "best: epoch 2"]
    assert first.get_title() == "cnn1" and list(first.lines[0].get_ydata()) == [0.9, 0.5, 0.4]
    assert (list(first.lines[2].get_xdata()), list(first.lines[2].get_ydata())) == ([2], [0.6])
    # Without validation the last weights are kept: there is no ring.
    assert second.get_title() == "cnn2" and [line.get_label() for line in second.lines] == ["training"]
