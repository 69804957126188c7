"""What every request passes through on its way to a call, and every answer on its way back."""
