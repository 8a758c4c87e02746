"""Fused losses on tensors; imports neither engine nor shards. Per op a contract, a torch reference that defines it, a kernel."""

from affect.kernels.arcface_ce import arcface_ce
from affect.kernels.arcface_head import arcface_head
from affect.kernels.dkd import dkd
from affect.kernels.proto_kd import one_hot_floor, proto_kd

__all__ = ["arcface_ce", "arcface_head", "dkd", "one_hot_floor", "proto_kd"]
