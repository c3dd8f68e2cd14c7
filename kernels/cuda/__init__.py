"""The same kernels on an NVIDIA GPU: arrays on the device in, arrays on the device out. Needs the extra `cuda`.

Importing this touches no driver, and works where there is no GPU; the first launch needs one.
"""

from hotloop.kernels.cuda.models import Trained as Trained
from hotloop.kernels.cuda.models import train_models as train_models
