"""A perceptron that knows its layers under several names."""

from torch import nn

from backbone import MammothBackbone, register_backbone


class BaseMNISTMLP(MammothBackbone):
    """784, two hidden layers, logits."""

    def __init__(self, num_classes, hidden):
        super().__init__()
        self.fc1 = nn.Linear(784, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self._features = nn.Sequential(self.fc1, nn.ReLU(), self.fc2, nn.ReLU())
        self.classifier = nn.Linear(hidden, num_classes)
        self.net = nn.Sequential(self._features, self.classifier)

    def forward(self, x, returnt="out"):
        features = self._features(x.view(-1, 784))
        answers = {
            "features": lambda: features,
            "out": lambda: self.classifier(features),
            "full": lambda: (self.classifier(features), features),
        }
        if returnt not in answers:
            raise NotImplementedError("a perceptron gives no such thing")
        return answers[returnt]()


@register_backbone("mnistmlp")
def mnistmlp(num_classes, mlp_hidden_size=100):
    return BaseMNISTMLP(num_classes, mlp_hidden_size)
