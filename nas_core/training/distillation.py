"""Learning from a teacher's soft predictions."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def distillation_loss(
    student_logits: Float[Tensor, "batch classes"], teacher_logits: Float[Tensor, "batch classes"], temperature: float
) -> Float[Tensor, ""]:
    """Divergence of the student's softened prediction from the teacher's.

    Args:
        student_logits: Gradients flow to these.
        teacher_logits: The target, on the same images.
        temperature: Divides all logits, > 0; the higher, the more the wrong classes count.

    Returns:
        temperature² KL(softmax(teacher / temperature) || softmax(student / temperature)) in nats, the batch's mean;
        >= 0. The factor keeps the size of the gradient about the same at every temperature.

    Source:
        Hinton, Vinyals and Dean, arXiv:1503.02531, section 2. The public code of Data-Free NAS leaves out the factor.
    """
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
