"""Pattern 4: PixelShuffle, SpaceToDepth, Focus: channels that become pixels and back."""

from tests.micro.build import Net, case


def stem(net: Net, size: int = 16) -> str:
    """Draw the input and one Conv."""
    return net.Relu(net.conv(net.input("batch", 3, 8, 8), 3, size))


@case(share=0.3)
@case("opset11", share=0.3, opset=11)
@case("opset13", share=0.3, opset=13)
def pixel_shuffle_crd(net):
    """CRD (torch): channel = c * 4 + offset."""
    y = net.DepthToSpace(net.conv(stem(net), 16, 32), blocksize=2, mode="CRD")
    net.output(net.conv(net.Relu(y), 8, 3))


@case(share=0.3)
@case("opset7", share=0.3, opset=7)
@case("opset11", share=0.3, opset=11)
def pixel_shuffle_dcr(net):
    """DCR (the default): channel = offset * C + c."""
    y = net.DepthToSpace(net.conv(stem(net), 16, 32), blocksize=2)
    net.output(net.conv(net.Relu(y), 8, 3))


@case(share=0.3)
@case("opset9", share=0.3, opset=9)
def pixel_shuffle_by_reshape(net):
    y = net.reshape(net.conv(stem(net), 16, 32), -1, 8, 2, 2, 8, 8)
    y = net.reshape(net.transpose(y, 0, 1, 4, 2, 5, 3), -1, 8, 16, 16)
    net.output(net.conv(net.Relu(y), 8, 3))


@case(share=0.4)
def pixel_shuffle_into_the_output(net):
    """ESPCN: what makes the image stays, what is before it goes."""
    y = net.Relu(net.conv(stem(net), 16, 16))
    net.output(net.DepthToSpace(net.conv(y, 16, 12), blocksize=2, mode="CRD"))


@case(share=0.35)
@case("opset7", share=0.35, opset=7)
def space_to_depth(net):
    y = net.SpaceToDepth(stem(net, 8), blocksize=2)
    net.output(net.conv(net.Relu(net.conv(y, 32, 16)), 16, 4))


@case(share=0.35)
@case("opset9", share=0.35, opset=9)
def focus_on_features(net):
    """Strided slices of one tensor, concatenated: four copies of every channel."""
    y = stem(net, 8)
    rows = (
        [net.slice(y, i, 8, 2, 2) for i in (0, 1)]
        if net.opset >= 10
        else [net.slice(y, 0, 4, 2), net.slice(y, 4, 8, 2)]
    )
    y = net.Concat(*rows, *rows, axis=1)
    net.output(net.conv(net.Relu(net.conv(y, 32, 16)), 16, 4))


@case(share=0.55)
def focus_on_the_input(net):
    """YOLOv5's first layer."""
    x = net.input("batch", 3, 8, 8)
    parts = [net.slice(net.slice(x, i, 8, 2, 2), j, 8, 3, 2) for j in (0, 1) for i in (0, 1)]
    y = net.Relu(net.conv(net.Concat(*parts, axis=1), 12, 16))
    net.output(net.conv(y, 16, 4))


@case(share=0.55)
def space_to_depth_and_back(net):
    y = net.SpaceToDepth(stem(net, 8), blocksize=2)
    y = net.DepthToSpace(net.Relu(net.conv(y, 32, 32, group=32)), blocksize=2)
    net.output(net.conv(y, 8, 4))


@case(share=0.4)
def patch_merging(net):
    """Swin: four neighbours side by side on the last axis, then a linear reduction."""
    y = net.transpose(stem(net, 8), 0, 2, 3, 1)
    parts = [net.slice(net.slice(y, i, 8, 1, 2), j, 8, 2, 2) for j in (0, 1) for i in (0, 1)]
    y = net.linear(net.Concat(*parts, axis=-1), 32, 16, bias=False)
    net.output(net.linear(net.Relu(y), 16, 4))


@case(share=0.4)
def patch_embedding_by_reshape(net):
    """Mixer-like: image -> patches -> channels, all by one Reshape."""
    y = net.reshape(stem(net, 8), -1, 8, 4, 2, 4, 2)
    y = net.reshape(net.transpose(y, 0, 2, 4, 1, 3, 5), -1, 16, 32)
    net.output(net.linear(net.Relu(net.linear(y, 32, 16)), 16, 4))
