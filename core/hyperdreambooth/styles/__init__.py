"""Style filters: photos as sketches, paintings and statues, to train and finetune with."""
