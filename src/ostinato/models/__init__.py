"""A model per kind of task, each built on the layers of `ostinato.nn`."""

from __future__ import annotations

from .adaptive import AdaptiveInput, adaptive_softmax
from .classifier import Classifier
from .distributions import Gaussian, NegativeBinomial, StudentT
from .encoder import Encoder
from .forecaster import Forecast, Forecaster
from .head import Head
from .heads import HEADS, head_from_spec
from .language_model import IGNORED, LanguageModel, Scored, activation_penalty
from .normalization import WindowNorm
from .pooling import AttentionPooling, Pooling, max_pool, mean_pool
from .quantiles import Point, Quantiles
from .residuals import Residuals
from .sources import FeatureInput, TokenInput
from .spec import Model, model_from_spec
from .spelling import SpelledInput, spelled
from .state import State, detach_state
from .tagger import Tagger

__all__ = [
    "HEADS",
    "IGNORED",
    "AdaptiveInput",
    "AttentionPooling",
    "Classifier",
    "Encoder",
    "FeatureInput",
    "Forecast",
    "Forecaster",
    "Gaussian",
    "Head",
    "LanguageModel",
    "Model",
    "NegativeBinomial",
    "Point",
    "Pooling",
    "Quantiles",
    "Residuals",
    "Scored",
    "SpelledInput",
    "State",
    "StudentT",
    "Tagger",
    "TokenInput",
    "WindowNorm",
    "activation_penalty",
    "adaptive_softmax",
    "detach_state",
    "head_from_spec",
    "max_pool",
    "mean_pool",
    "model_from_spec",
    "spelled",
]
